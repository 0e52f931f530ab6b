"""How long a database is waited for."""

import time
from typing import Any, Final

from sqlalchemy import Engine, event


class Stopwatch:
    """Listens to an engine that one thread uses; seconds since the last `reset`."""

    def __init__(self, engine: Engine) -> None:
        self.statements = 0.0
        self.commits = 0.0
        self._begun: Final[dict[str, float]] = {}
        event.listen(engine, "before_cursor_execute", self._statement_begins)
        event.listen(engine, "after_cursor_execute", self._statement_ends)
        event.listen(engine, "commit", self._commit_begins)
        event.listen(engine, "checkin", self._commit_ends)

    def reset(self) -> None:
        self.statements = self.commits = 0.0

    def _statement_begins(self, *_: Any) -> None:  # noqa: ANN401
        self._begun["statement"] = time.perf_counter()

    def _statement_ends(self, *_: Any) -> None:  # noqa: ANN401
        self.statements += time.perf_counter() - self._begun.pop("statement")

    def _commit_begins(self, *_: Any) -> None:  # noqa: ANN401
        self._begun["commit"] = time.perf_counter()

    def _commit_ends(self, *_: Any) -> None:  # noqa: ANN401
        if "commit" in self._begun:
            self.commits += time.perf_counter() - self._begun.pop("commit")
