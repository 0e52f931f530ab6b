"""The registration itself, on every database: whole or not at all."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from identity.database import Database
from identity.deadlines import Deadline
from identity.errors import DeadlineTooShort
from identity.schemas import Registration
from identity.security.passwords import PasswordHasher
from identity.services.registration import MAXIMUM_HOLD
from identity.values import MAXIMUM_VERIFICATION_TTL
from tests.fakes import FakeClock
from tests.registrar import registrar
from tests.requests import PASSWORD

REGISTRATION = Registration.checked(username="ann", email="ann@example.com", password=PASSWORD)


@pytest.fixture
def hasher() -> Iterator[PasswordHasher]:
    made = PasswordHasher(4, 1)
    yield made
    made.close()


@pytest.fixture
def queued() -> list[None]:
    """Grows by one with each mail that the deliverer is woken for."""
    return []


@pytest.fixture
def register(
    database: Database, hasher: PasswordHasher, clock: FakeClock, queued: list[None]
) -> Callable[[Deadline], object]:
    service = registrar(database, hasher, clock, lambda: queued.append(None))
    return lambda deadline: service.register(REGISTRATION, "", deadline)


def rows(database: Database) -> list[int]:
    """How many rows each table has."""
    with database.read() as connection:
        return [
            connection.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608
            for table in ("users", "verifications", "outbox")
        ]


@pytest.mark.parametrize(("looks", "stored"), [(0, 0), (1, 0), (2, 1)])
def test_a_caller_who_goes_away_before_the_commit_leaves_nothing_behind(
    register: Callable[[Deadline], object],
    database: Database,
    queued: list[None],
    looks: int,
    stored: int,
) -> None:
    """It is looked at twice: before the hash, and before the commit."""
    answers = iter([True] * looks + [False] * 10)
    deadline = Deadline(is_wanted=lambda: next(answers))
    if stored:
        register(deadline)
    else:
        with pytest.raises(DeadlineTooShort):
            register(deadline)
    assert rows(database) == [stored] * 3
    assert len(queued) == stored


def test_a_link_never_outlives_the_longest_hold() -> None:
    assert MAXIMUM_VERIFICATION_TTL <= MAXIMUM_HOLD
