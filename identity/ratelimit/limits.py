"""Which limit a call counts against."""

from collections.abc import Mapping
from typing import Final

from identity.ratelimit.store import LimitStore, Windows
from identity.ratelimit.window import Limit


class Limits:
    """A store for each limit: those of callers, of RPCs, and the general one for the rest."""

    def __init__(
        self,
        windows: Windows,
        by_method: Mapping[str, tuple[str, Limit]],
        by_caller: Mapping[str, Limit],
    ) -> None:
        """`by_method` names a limit for every RPC; those of the same name count together."""
        named = {name: windows.window(name, limit) for name, limit in set(by_method.values())}
        self._by_method: Final = {method: named[name] for method, (name, _) in by_method.items()}
        self._by_caller: Final = {
            name: windows.window(f"caller {name}", limit) for name, limit in by_caller.items()
        }

    def store(self, method: str, client: str, caller: str) -> LimitStore:
        """Where a call of the RPC counts, as that client's.

        A caller's own limit holds for what is counted as its own, whatever it calls; what it
        forwards counts for those whom it forwards.
        """
        if client == caller and caller in self._by_caller:
            return self._by_caller[caller]
        return self._by_method[method]
