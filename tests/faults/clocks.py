"""The machine's clock is set forth and back by ten minutes while the service runs."""

import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from random import Random
from typing import Final

from sqlalchemy import Interval, bindparam, delete, select, update
from sqlalchemy.engine import URL, make_url

from identity import migrate
from identity.clock import SteadyClock
from identity.database import Database, Moment, moment_of, read_clock
from identity.deadlines import Deadline
from identity.errors import TokenExpired
from identity.mail.outbox import LEASE, MailQueue, Outbox
from identity.models import OutboxMail, User, Verification
from identity.ratelimit.memory import MemoryStore
from identity.ratelimit.window import Limit
from identity.schemas import Registration
from identity.security.passwords import PasswordHasher
from identity.security.tokens import TokenSigner
from identity.services.registration import RegistrationService
from identity.services.verification import VerificationIssuer, VerificationService
from tests.fakes import FakeClock
from tests.faults.bench import Bench, Conclude
from tests.faults.postgres import postgres_server, url_of
from tests.faults.table import Figure, at_least, exactly, told
from tests.requests import PASSWORD

TRIALS: Final = 500
TRIALS_SHORT: Final = 50
SHIFT: Final = timedelta(minutes=10)
LIFE: Final = timedelta(hours=1)
_LOOKS: Final = 6  # at a token, around the end of its life


class Machine:
    """Time as it passes, and a wall clock that is set away from it."""

    def __init__(self) -> None:
        self._time = FakeClock()
        self._shift = timedelta()
        self.steady = SteadyClock(self._wall, self._time.monotonic)
        self.monotonic_ns = self._time.monotonic_ns

    def _wall(self) -> datetime:
        return self._time.now() + self._shift

    def set_clock(self, shift: timedelta) -> None:
        """Sets the wall clock to what is right, and so much more or less."""
        self._shift = shift

    def passes(self, duration: timedelta) -> None:
        self._time.advance(seconds=duration.total_seconds())

    @property
    def elapsed(self) -> timedelta:
        return timedelta(seconds=self._time.monotonic())


class Trial:
    """One service on one machine, and what its clock may do to it."""

    def __init__(self, database: Database, chance: Random, hasher: PasswordHasher) -> None:
        self.machine = Machine()
        self._chance = chance
        self._database = database
        # Forth and back, or back and forth.
        self._shifts = [timedelta(), chance.choice([SHIFT, -SHIFT])]
        signer = TokenSigner(["k" * 32])
        now = self.machine.steady.now
        self.moment = self._moment()
        issuer = VerificationIssuer(signer, LIFE, MailQueue(self.moment))
        self._registrar = RegistrationService(
            database, hasher, issuer, now=now, mail_queued=lambda: None
        )
        self._verifier = VerificationService(database, signer, now=now)
        self._signer = signer

    def _moment(self) -> Moment:
        """By the clock that leases go by: PostgreSQL's is on a machine of its own."""
        if not self._database.has_clock:
            return moment_of(self.machine.steady.now)
        elapsed = bindparam(None, callable_=lambda: self.machine.elapsed, type_=Interval())
        return self._database.moment + elapsed

    def set_clock(self) -> None:
        self._shifts.reverse()
        self.machine.set_clock(self._shifts[0])

    def token(self) -> str:
        name = uuid.UUID(int=self._chance.getrandbits(128)).hex[:20]
        user = self._registrar.register(
            Registration.checked(username=name, email=f"{name}@example.com", password=PASSWORD),
            "",
            Deadline(),
        )
        query = select(Verification.id).where(Verification.user_id == user.id)
        with self._database.read() as connection:
            token_id = connection.execute(query).scalar_one()
        return self._signer.token(token_id, self._signer.fingerprint)

    def is_good(self, token: str) -> bool:
        """Whether the token proves its address; it goes on to be of use."""
        try:
            user = self._verifier.verify(token, Deadline())
        except TokenExpired:
            return False
        with self._database.write() as connection:
            connection.execute(
                update(User).where(User.id == user.id).values(is_email_verified=False)
            )
        return True

    def outbox(self, holder: str) -> Outbox:
        return Outbox(self._database, holder, self.moment)


def clock_on_sqlite(bench: Bench) -> Conclude:
    return _set_clocks(bench, make_url(f"sqlite:///{bench.folder / 'identity.db'}"))


def clock_on_postgres(bench: Bench) -> Conclude:
    return _set_clocks(bench, url_of(bench.stack.enter_context(postgres_server())))


def _set_clocks(bench: Bench, url: URL) -> Conclude:
    migrate.upgrade(url)
    number = bench.rounds(TRIALS, TRIALS_SHORT)
    hasher = PasswordHasher(4, 1)
    tokens: list[tuple[bool, bool, bool]] = []
    leases: list[tuple[bool, bool]] = []
    waits: list[timedelta] = []
    with closing(Database(url)) as database:
        has_clock = database.has_clock
        for _ in range(number):
            tokens.append(_watch_a_token(Trial(database, bench.random, hasher), bench.random))
            leases.append(_dies_with_a_lease(Trial(database, bench.random, hasher)))
            waits += _waits(Trial(database, bench.random, hasher), database)
            with database.write() as connection:
                connection.execute(delete(User))
    hasher.close()

    def conclude() -> Iterator[Figure]:
        yield at_least("tokens looked at", len(tokens), number)
        yield exactly("revived after they had expired", sum(was for was, _, _ in tokens), 0)
        yield exactly("expired early by more than the shift", sum(was for _, was, _ in tokens), 0)
        yield exactly("good for longer than the shift", sum(was for _, _, was in tokens), 0)
        yield exactly("leases stuck", sum(was for was, _ in leases), 0)
        early = sum(was for _, was in leases)
        # SQLite has no clock but the machine's: set forward, it ends leases.
        yield (
            exactly("leases cut short", early, 0)
            if has_clock
            else told("leases cut short, all by a clock set forward", early)
        )
        yield exactly("negative waits", sum(wait < timedelta() for wait in waits), 0)

    return conclude


def _watch_a_token(trial: Trial, chance: Random) -> tuple[bool, bool, bool]:
    """Whether it was revived, expired too early, was good for too long."""
    token = trial.token()
    registered = trial.machine.elapsed
    looks = sorted(
        LIFE + timedelta(seconds=chance.uniform(-1.5, 1.5) * SHIFT.total_seconds())
        for _ in range(_LOOKS)
    )
    was_good, revived, early, late = True, False, False, False
    for age in looks:
        trial.machine.passes(registered + age - trial.machine.elapsed)
        trial.set_clock()
        is_good = trial.is_good(token)
        revived |= is_good and not was_good
        early |= not is_good and age < LIFE - SHIFT
        late |= is_good and age > LIFE + SHIFT
        was_good = is_good
    return revived, early, late


def _dies_with_a_lease(trial: Trial) -> tuple[bool, bool]:
    """Whether the mail of a deliverer that died did not come due after a lease; or before."""
    trial.token()
    dead, heir = trial.outbox(str(uuid.uuid4())), trial.outbox(str(uuid.uuid4()))
    mails = {mail.outbox_id for mail in dead.claim(1000).mails}
    trial.set_clock()
    early = {mail.outbox_id for mail in heir.claim(1000).mails}
    trial.machine.passes(LEASE)
    trial.set_clock()
    late = {mail.outbox_id for mail in heir.claim(1000).mails}
    return not mails <= early | late, bool(mails & early)


def _waits(trial: Trial, database: Database) -> Iterator[timedelta]:
    """How long a mail waits for its next try, and a caller for his."""
    trial.token()
    outbox = trial.outbox(str(uuid.uuid4()))
    (mail,) = outbox.claim(1).mails
    trial.set_clock()
    outbox.retry(mail, "smtp 451", timedelta(seconds=5))
    with database.read() as connection:
        due_at = connection.execute(
            select(OutboxMail.due_at).where(OutboxMail.id == mail.outbox_id)
        ).scalar_one()
        yield due_at - read_clock(connection, trial.moment)
    outbox.sent(mail.outbox_id)
    limiter = MemoryStore(Limit.per_seconds(1, 60), clock=trial.machine.monotonic_ns)
    for _ in range(2):
        trial.set_clock()
        decision = limiter.hit("somebody")
        yield timedelta(microseconds=decision.retry_after_ns / 1000)
        yield timedelta(microseconds=decision.reset_after_ns / 1000)
