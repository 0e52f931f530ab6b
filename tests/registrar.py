"""The registration service as tests need it: on a clock that only moves when told."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from identity.database import Database, moment_of
from identity.mail.outbox import MailQueue
from identity.security.passwords import PasswordHasher
from identity.security.tokens import TokenSigner
from identity.services.registration import RegistrationService
from identity.services.verification import VerificationIssuer
from tests.fakes import FakeClock

LIFETIME: Final = timedelta(hours=24)
SIGNER: Final = TokenSigner(["k" * 32])


def issuer(clock: FakeClock) -> VerificationIssuer:
    return VerificationIssuer(SIGNER, LIFETIME, MailQueue(moment_of(clock.now)))


def registrar(
    database: Database,
    hasher: PasswordHasher,
    clock: FakeClock,
    mail_queued: Callable[[], None] = lambda: None,
) -> RegistrationService:
    return RegistrationService(
        database, hasher, issuer(clock), now=clock.now, mail_queued=mail_queued
    )
