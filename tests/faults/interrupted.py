"""A Register that is interrupted at each of its steps, one after the other."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url

from identity import migrate
from identity.database import Database
from identity.deadlines import Deadline
from identity.errors import DeadlineTooShort
from identity.mail.outbox import MailQueue
from identity.schemas import Registration
from identity.security.passwords import PasswordHasher
from identity.security.tokens import TokenSigner
from identity.services.registration import RegisteredUser, RegistrationService
from identity.services.verification import VerificationIssuer
from tests.faults.bench import Bench, Conclude
from tests.faults.postgres import postgres_server, url_of
from tests.faults.table import at_least, exactly, told
from tests.requests import PASSWORD

LIFE: Final = 10.0  # seconds of a call's deadline

_TABLES: Final = ("users", "verifications", "outbox", "idempotency_keys")


@dataclass
class Points:
    """The steps that a Register passes. At one of them its caller goes away."""

    interrupt_at: int
    leave: Callable[[], None]
    passed: list[str] = field(default_factory=list)

    def reach(self, step: str) -> None:
        self.passed.append(step)
        if len(self.passed) == self.interrupt_at:
            self.leave()

    @contextmanager
    def watch(self, database: Database) -> Iterator[None]:
        """Every statement is two steps, before and after it, and so is the commit."""

        def before(_c: object, _k: object, statement: str, *_rest: object) -> None:
            self.reach(f"before {statement.split(maxsplit=1)[0]}")

        def after(_c: object, _k: object, statement: str, *_rest: object) -> None:
            self.reach(f"after {statement.split(maxsplit=1)[0]}")

        def commit(_connection: object) -> None:
            self.reach("before the commit")

        listeners: dict[str, Callable[..., None]] = {
            "before_cursor_execute": before,
            "after_cursor_execute": after,
            "commit": commit,
        }
        for name, listener in listeners.items():
            event.listen(database.engine, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                event.remove(database.engine, name, listener)


class PointedHasher(PasswordHasher):
    """Reaches a point before and after each hash."""

    points: Points | None = None

    def hash(self, password: str, deadline: Deadline) -> str:
        assert self.points
        self.points.reach("before the hash")
        made = super().hash(password, deadline)
        self.points.reach("after the hash")
        return made


class Caller:
    """Somebody who waits for an answer until he cancels, or until his deadline is over."""

    def __init__(self) -> None:
        self.is_waiting = True
        self.time = 0.0

    def cancel(self) -> None:
        self.is_waiting = False

    def run_out_of_time(self) -> None:
        self.time += LIFE

    def deadline(self) -> Deadline:
        return Deadline.after(LIFE, lambda: self.time, lambda: self.is_waiting)


Leave: TypeAlias = Callable[[Caller], None]


@dataclass(frozen=True)
class Outcome:
    """What an interrupted Register left behind."""

    step: str
    was_refused: bool
    rows: tuple[int, ...]  # of this user, in each table
    connections_out: int  # of the pool, not given back
    rows_after_repeat: tuple[int, ...]

    @property
    def is_whole_or_nothing(self) -> bool:
        nothing, whole = (0,) * len(_TABLES), (1,) * len(_TABLES)
        return (
            self.rows == (nothing if self.was_refused else whole)
            and self.connections_out == 0
            and self.rows_after_repeat == whole
        )


def interruptions_on_sqlite(bench: Bench) -> Conclude:
    return _conclude(make_url(f"sqlite:///{bench.folder / 'identity.db'}"))


def interruptions_on_postgres(bench: Bench) -> Conclude:
    return _conclude(url_of(bench.stack.enter_context(postgres_server())))


def _conclude(url: URL) -> Conclude:
    figures = []
    for what, leave in (("cancelled", Caller.cancel), ("out of time", Caller.run_out_of_time)):
        migrate.upgrade(url)
        with closing(Database(url)) as database:
            outcomes = interrupt_each_step(database, leave)
            with database.write() as connection:
                connection.execute(text("DELETE FROM users"))
        whole = sum(outcome.is_whole_or_nothing for outcome in outcomes)
        refused = sum(outcome.was_refused for outcome in outcomes)
        figures += [
            at_least(f"{what}: steps at which it was", len(outcomes), 10),
            exactly(f"{what}: whole or nothing, and whole after a repeat", whole, len(outcomes)),
            told(f"{what}: of these nothing at first", refused),
        ]
    return lambda: figures


def interrupt_each_step(database: Database, leave: Leave) -> list[Outcome]:
    """Registers a person for every step there is, interrupted there, and then repeats it."""
    hasher = PointedHasher(4, 1)
    service = RegistrationService(
        database,
        hasher,
        VerificationIssuer(TokenSigner(["k" * 32]), timedelta(hours=1), MailQueue(database.moment)),
        now=lambda: datetime.now(UTC),
        mail_queued=lambda: None,
    )
    outcomes: list[Outcome] = []
    try:
        while True:
            outcome = _interrupt(database, service, hasher, leave, len(outcomes) + 1)
            if outcome is None:
                return outcomes
            outcomes.append(outcome)
    finally:
        hasher.close()


def _interrupt(
    database: Database,
    service: RegistrationService,
    hasher: PointedHasher,
    leave: Leave,
    interrupt_at: int,
) -> Outcome | None:
    """None once there is no such step."""
    registration = Registration.checked(
        username=f"step{interrupt_at}",
        email=f"step{interrupt_at}@example.com",
        password=PASSWORD,
        request_id=str(uuid.uuid4()),
    )
    caller = Caller()
    points = hasher.points = Points(interrupt_at, lambda: leave(caller))
    with points.watch(database):
        replied = _register(service, registration, caller.deadline())
    if len(points.passed) < interrupt_at:
        return None
    rows = _rows(database, registration.email)
    connections_out = database.engine.pool.checkedout()  # type: ignore[attr-defined]
    hasher.points = Points(0, lambda: None)
    _register(service, registration, Deadline())
    return Outcome(
        step=points.passed[interrupt_at - 1],
        was_refused=replied is None,
        rows=rows,
        connections_out=connections_out,
        rows_after_repeat=_rows(database, registration.email),
    )


def _register(
    service: RegistrationService, registration: Registration, deadline: Deadline
) -> RegisteredUser | None:
    try:
        return service.register(registration, "", deadline)
    except DeadlineTooShort:
        return None


def _rows(database: Database, email: str) -> tuple[int, ...]:
    with database.read() as connection:
        return tuple(
            connection.scalar(
                text(
                    f"SELECT count(*) FROM {table} WHERE "  # noqa: S608
                    f"{'id' if table == 'users' else 'user_id'} IN "
                    "(SELECT id FROM users WHERE email = :email)"
                ),
                {"email": email},
            )
            for table in _TABLES
        )
