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
