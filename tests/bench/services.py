"""The services without gRPC, on a database, for one thread."""

import uuid
from email.headerregistry import Address
from typing import Final

from sqlalchemy.engine import URL

from identity.clock import SteadyClock
from identity.database import Database
from identity.deadlines import Deadline
from identity.mail.deliverer import Deliverer
from identity.mail.outbox import MailQueue, Outbox
from identity.mail.sender import Sender
from identity.mail.templates import Templates
from identity.schemas import Registration, UserReference
from identity.security.passwords import PasswordHasher
from identity.services.delivery import DeliveryStatus, DeliveryStatusService
from identity.services.registration import RegistrationService
from identity.services.resend import ResendService
from identity.services.verification import VerificationIssuer, VerificationService
from tests.bench.people import SIGNER
from tests.registrar import LIFETIME
from tests.requests import PASSWORD

COST: Final = 4
PATIENCE: Final = 30.0  # seconds; nothing takes that long


class Services:
    """Wired as in identity/server.py."""

    def __init__(self, url: URL) -> None:
        self.database: Final = Database(url)
        self._now = SteadyClock().now
        self._hasher = PasswordHasher(COST, cores=1)
        issuer = VerificationIssuer(SIGNER, LIFETIME, MailQueue(self.database.moment))
        self.registration: Final = RegistrationService(
            self.database, self._hasher, issuer, now=self._now, mail_queued=lambda: None
        )
        self.verification: Final = VerificationService(self.database, SIGNER, now=self._now)
        self.resend: Final = ResendService(self.database, issuer, now=self._now)
        self._status = DeliveryStatusService(self.database, self.database.moment)
        self.outbox: Final = Outbox(self.database, str(uuid.uuid4()), self.database.moment)

    def close(self) -> None:
        self._hasher.close()
        self.database.close()

    def register(self, name: str, request_id: str = "") -> None:
        self.registration.register(checked(name, request_id), "10.0.0.1", _deadline())

    def verify(self, token: str) -> None:
        self.verification.verify(token, _deadline())

    def ask_for_resend(self, email: str) -> None:
        self.resend.request(email, _deadline())

    def status(self, email: str) -> DeliveryStatus:
        return self._status.status(UserReference.checked(email=email), _deadline())

    def deliverer(self, sender: Sender) -> Deliverer:
        templates = Templates(
            Address("Bench", "bench", "example.com"), "https://example.com/?token={token}"
        )
        return Deliverer(self.outbox, sender, templates, SIGNER, now=self._now)


def checked(name: str, request_id: str = "") -> Registration:
    """A registration that has been through the rules."""
    return Registration.checked(
        username=name, email=f"{name}@example.com", password=PASSWORD, request_id=request_id
    )


def _deadline() -> Deadline:
    return Deadline.after(PATIENCE)
