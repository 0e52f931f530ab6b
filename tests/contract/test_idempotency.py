"""A Register that is repeated with its request id, on every database."""

import uuid
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import delete, text, update

from identity.database import Database
from identity.deadlines import Deadline
from identity.errors import EmailTaken, IdentityError, RequestIdReused, UsernameTaken
from identity.models import User
from identity.schemas import Registration
from identity.security.passwords import PasswordHasher
from identity.services.cleanup import Cleanup
from identity.services.registration import RegisteredUser
from tests.fakes import FakeClock
from tests.registrar import registrar
from tests.requests import PASSWORD

REQUEST = str(uuid.uuid4())
CALLER = "192.0.2.7"


class CountingHasher(PasswordHasher):
    """Counts the hashes that it makes."""

    made = 0

    def hash(self, password: str, deadline: Deadline) -> str:
        self.made += 1
        return super().hash(password, deadline)


@pytest.fixture
def hasher() -> Iterator[CountingHasher]:
    made = CountingHasher(4, 1)
    yield made
    made.close()


class Queue:
    """Is told of queued mails; breaks the call that queued one, after its commit, when told to."""

    def __init__(self) -> None:
        self.mails = 0
        self.breaks = False

    def __call__(self) -> None:
        self.mails += 1
        if self.breaks:
            raise ConnectionResetError


@pytest.fixture
def queue() -> Queue:
    return Queue()


Register = Callable[..., RegisteredUser]


@pytest.fixture
def register(
    database: Database, hasher: PasswordHasher, clock: FakeClock, queue: Queue
) -> Register:
    service = registrar(database, hasher, clock, queue)

    def call(
        username: str = "ann",
        email: str = "ann@example.com",
        password: str = PASSWORD,
        request_id: str = REQUEST,
        caller: str = CALLER,
    ) -> RegisteredUser:
        registration = Registration.checked(
            username=username, email=email, password=password, request_id=request_id
        )
        return service.register(registration, caller, Deadline())

    return call


def rows(database: Database) -> list[int]:
    """How many users, verifications, mails and remembered requests there are."""
    with database.read() as connection:
        return [
            connection.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608
            for table in ("users", "verifications", "outbox", "idempotency_keys")
        ]


def test_a_repeat_gets_the_first_reply_and_does_nothing(
    register: Register, database: Database, queue: Queue, hasher: CountingHasher
) -> None:
    first = register()
    assert [register(), register(email="Ann@EXAMPLE.com")] == [first, first]
    assert rows(database) == [1, 1, 1, 1]
    assert (queue.mails, hasher.made) == (1, 1)


def test_a_repeat_after_a_lost_reply_gets_it(
    register: Register, database: Database, queue: Queue
) -> None:
    queue.breaks = True
    with pytest.raises(ConnectionResetError):
        register()
    assert register().username == "ann"
    assert rows(database) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "other",
    [
        {"username": "bob"},
        {"username": "Ann"},  # it would be stored as typed
        {"email": "bob@example.com"},
        {"password": "Another-Horse-7!"},
    ],
)
def test_other_content_under_the_same_id_is_refused(
    register: Register, database: Database, other: dict[str, str]
) -> None:
    first = register()
    with pytest.raises(RequestIdReused):
        register(**other)
    assert rows(database) == [1, 1, 1, 1]
    assert register() == first


def test_callers_do_not_share_request_ids(register: Register, database: Database) -> None:
    register()
    with pytest.raises(EmailTaken):
        register(caller="192.0.2.8")
    register("bob", "bob@example.com", caller="192.0.2.8")
    assert rows(database) == [2, 2, 2, 2]


def test_without_a_request_id_a_repeat_meets_its_own_registration(
    register: Register, database: Database
) -> None:
    register(request_id="")
    with pytest.raises(EmailTaken):
        register(request_id="")
    assert rows(database) == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("refusal", "taken"),
    [(EmailTaken, {"username": "bob"}), (UsernameTaken, {"email": "bob@example.com"})],
)
def test_only_successes_are_remembered(
    register: Register,
    database: Database,
    refusal: type[IdentityError],
    taken: dict[str, str],
) -> None:
    register(**taken, request_id=str(uuid.uuid4()))
    for _ in range(2):
        with pytest.raises(refusal):
            register()
    with database.write() as connection:
        connection.execute(delete(User))
    assert register().username == "ann"


def test_a_request_is_remembered_for_a_day(
    register: Register, database: Database, clock: FakeClock
) -> None:
    first = register()
    with database.write() as connection:
        connection.execute(update(User).values(is_email_verified=True, held_until=None))
    clock.advance(hours=23, minutes=59)
    assert register() == first
    clock.advance(minutes=1)
    with pytest.raises(EmailTaken):
        register()
    assert register("bob", "bob@example.com").id != first.id


def test_a_request_is_forgotten_with_its_user(register: Register, database: Database) -> None:
    first = register()
    with database.write() as connection:
        connection.execute(delete(User))
    again = register()
    assert again.id != first.id
    assert rows(database) == [1, 1, 1, 1]


def test_what_is_over_is_cleaned_up(
    register: Register, database: Database, clock: FakeClock
) -> None:
    cleanup = Cleanup(database, now=clock.now)
    register()
    clock.advance(hours=24)
    cleanup.run(lambda: False)
    assert rows(database)[3] == 1
    clock.advance(minutes=10)
    cleanup.run(lambda: False)
    assert rows(database) == [1, 1, 1, 0]
