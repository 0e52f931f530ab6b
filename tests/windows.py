"""Windows in Valkey, and what is told of them."""

import queue
from collections.abc import Callable

from identity.meters import Meters
from identity.ratelimit.store import LimitStore
from identity.ratelimit.valkey import ValkeyWindows
from identity.ratelimit.window import Limit
from tests.valkey import PATIENCE

SMALL = Limit.per_seconds(3, 60)

# Windows on a server, started; keyword arguments are those of ValkeyWindows.
Open = Callable[..., ValkeyWindows]


class RecordedMeters(Meters):
    """Keeps each change of the store."""

    def __init__(self) -> None:
        self._changes: queue.Queue[bool] = queue.Queue()

    def limit_store_changed(self, *, is_reachable: bool) -> None:
        self._changes.put(is_reachable)

    def next(self) -> bool:
        """Waits for the next change."""
        return self._changes.get(timeout=PATIENCE)

    @property
    def are_read(self) -> bool:
        return self._changes.empty()


def remaining(store: LimitStore, calls: int, client: str = "ann") -> list[int]:
    """What is told of calls left; -1 for a refusal."""
    decisions = [store.hit(client) for _ in range(calls)]
    return [decision.remaining if decision.admitted else -1 for decision in decisions]
