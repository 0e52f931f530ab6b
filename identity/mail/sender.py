"""What every sender promises, and how a delivery can fail."""

from dataclasses import dataclass
from email.message import EmailMessage
from typing import Protocol


@dataclass(frozen=True)
class Mail:
    """A mail to one person, ready to be sent."""

    outbox_id: str  # the same at every attempt, so that a duplicate can be recognised
    to: str
    message: EmailMessage


class DeliveryError(Exception):
    """A mail was not accepted.

    `reason` is kept and shown to operators: the protocol's own codes, never the other side's
    text, which tends to repeat addresses.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TemporaryFailure(DeliveryError):
    """The same mail may be accepted later."""


class PermanentFailure(DeliveryError):
    """This mail will never be accepted."""


class AccountFailure(DeliveryError):
    """No mail would be accepted at present: the fault lies in the account, not in this mail."""


class Sender(Protocol):
    """Hands mails to a provider. Used by one thread at a time."""

    def send(self, mail: Mail) -> None:
        """Returns once the provider has accepted the mail, and only then.

        Raises TemporaryFailure, PermanentFailure or AccountFailure. After any other exception it
        is unknown whether the mail was accepted. Sending again is safe: at worst the same mail
        comes twice.
        """

    def close(self) -> None:
        """Lets go of connections; the next `send` makes new ones."""
