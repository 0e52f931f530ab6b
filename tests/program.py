"""`identity outbox`, run in this process, and what it answered."""

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from sqlalchemy.engine import URL


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)


Command = Callable[..., Answer]


def use(monkeypatch: pytest.MonkeyPatch, url: URL) -> None:
    for name in os.environ:
        if name.startswith("IDENTITY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IDENTITY_DATABASE_URL", url.render_as_string(hide_password=False))
