"""Fifty callers at the same moment, on two processes of the service."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Final, TypeAlias

from sqlalchemy import func, insert, select
from sqlalchemy.engine import URL, make_url

from identity.database import Database
from identity.models import OutboxMail, User, Verification
from identity.security.tokens import TokenSigner
from identity.services.cleanup import NEVER_VERIFIED, Cleanup
from identity.v1.identity_pb2 import (
    RegisterRequest,
    ResendVerificationRequest,
    VerifyEmailRequest,
)
from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.crowd import at_once, mixed_case
from tests.faults.bench import Bench, Conclude
from tests.faults.nodes import KEYS, channel_to, nodes
from tests.faults.postgres import postgres_server, url_of
from tests.faults.sink import Sink
from tests.faults.table import Figure, exactly
from tests.requests import registration

ROUNDS: Final = 100
ROUNDS_SHORT: Final = 5
CALLERS: Final = 50
REPEATS: Final = 30
CLEANERS: Final = 10
_DEADLINE: Final = 60  # seconds

EMAIL_TAKEN: Final = "ALREADY_EXISTS EMAIL_TAKEN"
USERNAME_TAKEN: Final = "ALREADY_EXISTS USERNAME_TAKEN"
TOKEN_USED: Final = "INVALID_ARGUMENT TOKEN_USED"
TOKEN_EXPIRED: Final = "INVALID_ARGUMENT TOKEN_EXPIRED"


@dataclass(frozen=True)
class Field:
    """Where a race is run: two processes, and a look into their database."""

    stubs: Sequence[IdentityServiceStub]
    database: Database
    random: Random

    def stub(self, number: int) -> IdentityServiceStub:
        return self.stubs[number % len(self.stubs)]

    def users(self, *emails: str) -> list[tuple[str, str, bool]]:
        """id, username and whether verified, of those who hold one of the addresses."""
        query = select(User.id, User.username, User.is_email_verified)
        with self.database.read() as connection:
            found = connection.execute(query.where(User.email.in_(emails)))
            return [(user_id, name, verified) for user_id, name, verified in found]

    def mails(self, user_id: str) -> int:
        query = select(func.count()).where(OutboxMail.user_id == user_id)
        with self.database.read() as connection:
            return connection.scalar(query) or 0


@dataclass
class Score:
    """How the rounds of one kind ended."""

    rounds: int = 0
    right: int = 0
    unexpected: list[str] = field(default_factory=list)


# One round: whether it ended as it must, and how each call ended.
Race: TypeAlias = Callable[[Field, int], tuple[bool, list[str]]]


def same_address(place: Field, number: int) -> tuple[bool, list[str]]:
    email = f"address{number}@example.com"
    requests = [registration(f"a{number}.{n}", mixed_case(email, n)) for n in range(CALLERS)]
    outcomes = _register(place, requests)
    right = Counter(outcomes) == {"OK": 1, EMAIL_TAKEN: CALLERS - 1}
    return right and len(place.users(email)) == 1, outcomes


def same_username(place: Field, number: int) -> tuple[bool, list[str]]:
    emails = [f"u{number}.{n}@example.com" for n in range(CALLERS)]
    name = f"username{number}"
    requests = [registration(mixed_case(name, n), email) for n, email in enumerate(emails)]
    outcomes = _register(place, requests)
    right = Counter(outcomes) == {"OK": 1, USERNAME_TAKEN: CALLERS - 1}
    return right and len(place.users(*emails)) == 1, outcomes


def crossed_pairs(place: Field, number: int) -> tuple[bool, list[str]]:
    """One's name with the other's address, and the other way round: one can win, or two."""
    names = [f"cross{number}.{n}" for n in range(2)]
    emails = [f"{name}@example.com" for name in names]
    pairs = [(name, email) for name in names for email in emails]
    outcomes = _register(place, [registration(*pairs[n % 4]) for n in range(CALLERS)])
    users = place.users(*emails)
    right = (
        outcomes.count("OK") == len(users)
        and 1 <= len(users) <= 2
        and len({name for _, name, _ in users}) == len(users)
    )
    return right, outcomes


def repeats(place: Field, number: int) -> tuple[bool, list[str]]:
    """One request, many times at once: all get the reply of the one that was carried out."""
    name = f"repeat{number}"
    email = f"{name}@example.com"
    request = registration(name, email, request_id=str(uuid.uuid4()))
    replies: set[tuple[str, str, str, str]] = set()

    def register(n: int) -> None:
        reply = place.stub(n).Register(request, timeout=_DEADLINE)
        replies.add((reply.id, reply.username, reply.email, reply.message))

    outcomes = at_once([partial(register, n) for n in range(REPEATS)])
    users = {user_id for user_id, _, _ in place.users(email)}
    right = outcomes == ["OK"] * REPEATS and {reply[0] for reply in replies} == users
    right = right and len(replies) == len(users) == 1
    return right and place.mails(users.pop()) == 1, outcomes


def verify_resend_forget(place: Field, number: int) -> tuple[bool, list[str]]:
    """A registration that is due to be forgotten, and a token of it that is still good."""
    email = f"late{number}@example.com"
    token = _late_user(place.database, f"late{number}", email)
    callers = (CALLERS - CLEANERS) // 2

    def verify(n: int) -> object:
        return place.stub(n).VerifyEmail(VerifyEmailRequest(token=token), timeout=_DEADLINE)

    def resend(n: int) -> object:
        request = ResendVerificationRequest(email=email)
        return place.stub(n).ResendVerification(request, timeout=_DEADLINE)

    def forget(_n: int) -> object:
        return Cleanup(place.database, now=lambda: datetime.now(UTC)).run(lambda: False)

    kinds = [verify] * callers + [resend] * callers + [forget] * CLEANERS
    place.random.shuffle(kinds)
    outcomes = at_once([partial(kind, n) for n, kind in enumerate(kinds)])
    pairs = list(zip(kinds, outcomes, strict=True))
    verified = Counter(outcome for kind, outcome in pairs if kind is verify)
    others = {outcome for kind, outcome in pairs if kind is not verify}
    users = [is_verified for _, _, is_verified in place.users(email)]
    was_first = verified == {"OK": 1, TOKEN_USED: callers - 1} and users == [True]
    was_forgotten = verified == {TOKEN_EXPIRED: callers} and users == []
    return (was_first or was_forgotten) and others == {"OK"}, outcomes


RACES: Final[dict[str, tuple[Race, frozenset[str]]]] = {
    "same address": (same_address, frozenset({"OK", EMAIL_TAKEN})),
    "same username": (same_username, frozenset({"OK", USERNAME_TAKEN})),
    "crossed pairs": (crossed_pairs, frozenset({"OK", EMAIL_TAKEN, USERNAME_TAKEN})),
    "30 repeats of one request": (repeats, frozenset({"OK"})),
    "verify, resend, forget": (verify_resend_forget, frozenset({"OK", TOKEN_USED, TOKEN_EXPIRED})),
}


def races_on_sqlite(bench: Bench) -> Conclude:
    return _race(bench, make_url(f"sqlite:///{bench.folder / 'identity.db'}"))


def races_on_postgres(bench: Bench) -> Conclude:
    return _race(bench, url_of(bench.stack.enter_context(postgres_server())))


def _race(bench: Bench, url: URL) -> Conclude:
    sink = bench.stack.enter_context(Sink())
    pair = nodes(bench.stack, bench.folder, url, sink.port, 2)
    scores = {kind: Score() for kind in RACES}
    for node in pair:
        node.start()
    channels = [bench.stack.enter_context(channel_to(node)) for node in pair]
    with closing(Database(url)) as database:
        place = Field(
            [IdentityServiceStub(channel) for channel in channels], database, bench.random
        )
        for number in range(bench.rounds(ROUNDS, ROUNDS_SHORT)):
            for kind, (race, expected) in RACES.items():
                is_right, outcomes = race(place, number)
                scores[kind].rounds += 1
                scores[kind].right += is_right
                scores[kind].unexpected += [found for found in outcomes if found not in expected]
            if number % 20 == 19:
                bench.say(f"{number + 1} rounds")
    for node in pair:
        node.stop()
    unforeseen = [line for node in pair for line in node.events("unforeseen", "job_failed")]

    def conclude() -> Iterator[Figure]:
        for kind, score in scores.items():
            yield exactly(f"{kind}: rounds that ended right", score.right, score.rounds)
            yield exactly(f"{kind}: unexpected answers", len(score.unexpected), 0)
        yield exactly("unforeseen errors in the log", len(unforeseen), 0)

    return conclude


def _register(place: Field, requests: Sequence[RegisterRequest]) -> list[str]:
    return at_once(
        [
            partial(place.stub(n).Register, request, timeout=_DEADLINE)
            for n, request in enumerate(requests)
        ]
    )


def _late_user(database: Database, name: str, email: str) -> str:
    """Somebody whose hold lapsed more than a week ago; a token of his that has not lapsed."""
    now = datetime.now(UTC)
    lapsed = now - NEVER_VERIFIED - timedelta(days=1)
    signer = TokenSigner([KEYS])
    token_id, user_id = signer.new_id(), str(uuid.uuid4())
    with database.write() as connection:
        connection.execute(
            insert(User).values(
                id=user_id,
                username=name,
                username_key=name,
                email=email,
                password_hash="x",
                is_email_verified=False,
                held_until=lapsed,
                created_at=lapsed,
                updated_at=lapsed,
            )
        )
        connection.execute(
            insert(Verification).values(
                id=token_id,
                user_id=user_id,
                email=email,
                key_fingerprint=signer.fingerprint,
                created_at=lapsed,
                expires_at=now + timedelta(hours=1),
            )
        )
    return signer.token(token_id, signer.fingerprint)
