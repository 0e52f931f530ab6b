"""Which window counts a call."""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from identity.ratelimit.store import LimitStore
from identity.ratelimit.window import Limit

# Opens the windows of a name: those of one name and one store are the same for all processes.
OpenWindows: TypeAlias = Callable[[str, Limit], LimitStore]


class Limits:
    """One set of windows for each limit: of callers, of RPCs, and the general one for the rest."""

    def __init__(
        self,
        open_windows: OpenWindows,
        by_method: Mapping[str, tuple[str, Limit]],
        by_caller: Mapping[str, Limit],
    ) -> None:
        """`by_method` names a limit for every RPC; those of the same name count together."""
        named = {name: open_windows(name, limit) for name, limit in set(by_method.values())}
        self._by_method: Final = {method: named[name] for method, (name, _) in by_method.items()}
        self._by_caller: Final = {
            name: open_windows(f"caller {name}", limit) for name, limit in by_caller.items()
        }

    def windows(self, method: str, client: str, caller: str) -> LimitStore:
        """The windows for a call of the RPC, counted as that client's.

        A caller's own limit holds for what is counted as its own, whatever it calls; what it
        forwards counts for those whom it forwards.
        """
        if client == caller and caller in self._by_caller:
            return self._by_caller[caller]
        return self._by_method[method]
