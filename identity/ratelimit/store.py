"""What every store of windows promises."""

from typing import Protocol

from identity.ratelimit.window import Decision, Limit


class LimitStore(Protocol):
    """Counts the calls of clients against one limit."""

    @property
    def limit(self) -> Limit:
        """The limit that is counted against."""

    def hit(self, client: str) -> Decision:
        """Counts a call of the client, or refuses it without counting.

        Safe to call from any number of threads: of calls at once, exactly as many are admitted as
        the limit has left.
        """


class Windows(Protocol):
    """A place to count in, from which the stores of all limits come."""

    def start(self) -> None:
        """Call it before the first call is counted."""

    def window(self, name: str, limit: Limit) -> LimitStore:
        """The store of one limit. Stores of different names do not count together."""

    def close(self) -> None:
        """Lets go of what it holds. Stores go on to count, each for itself."""
