"""What the service tells of its work while it works. Nobody listens, unless metrics are wanted."""

from datetime import timedelta
from enum import StrEnum
from typing import Final


class DeliveryResult(StrEnum):
    """How one try to send a mail ended."""

    SENT = "sent"
    DELAYED = "delayed"  # tried again later
    DEAD = "dead"  # never tried again
    PAUSED = "paused"  # nothing is wrong with the mail; no mail at all is accepted


class Meters:
    """Takes no notice. Who wants to measure overrides what it is told.

    Told by any thread, on hot paths: what listens must be quick and must not fail. Nothing that a
    caller sent is ever told.
    """

    def call_started(self, method: str) -> None:
        """A call of ours has begun. `method`: "/identity.v1.IdentityService/Register"."""

    def call_handled(self, method: str, code: str, reason: str, seconds: float) -> None:
        """It has ended. `code`: "OK", ...; `reason`: that of the refusal, empty for a success."""

    def verified(self, since_registration: timedelta) -> None:
        """Somebody has proven an address, so long after Register."""

    def delivery_tried(self, result: DeliveryResult) -> None:
        """A mail was tried."""

    def hash_waits(self) -> None:
        """Work for the hashing pool was admitted, and waits for a thread."""

    def hash_begins(self, waited: float) -> None:
        """It has a thread now, after so many seconds."""

    def hash_given_up(self) -> None:
        """It was taken out of the queue without a hash."""

    def limit_store_changed(self, *, is_reachable: bool) -> None:
        """Whether the shared windows count, or, while they are out of reach, local ones."""

    def connection_taken(self) -> None:
        """A connection of the database's pool is in use."""

    def connection_returned(self) -> None:
        """It is not any more."""

    def handshake_refused(self, reason: str) -> None:
        """A connection ended in its TLS handshake; `reason` is one of HANDSHAKE_REASONS."""


SILENT: Final = Meters()
