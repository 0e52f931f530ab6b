"""`identity outbox`, on every database: what an operator sees."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, update

from identity.database import Database
from identity.mail.outbox import LEASE
from identity.mail.sender import PermanentFailure, TemporaryFailure
from identity.models import OutboxPause, User, Verification
from tests.fakes import FakeClock, RecordingSender
from tests.outbox import (
    LIFETIME,
    SIGNER,
    UNKNOWN,
    claimed_mail,
    dead_mail,
    deliverer,
    orphaned_mail,
    queue,
    sent_mail,
)
from tests.program import Command

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture
def clock() -> FakeClock:
    """An hour behind the wall clock, which the commands go by."""
    return FakeClock(datetime.now(UTC) - timedelta(hours=1))


def test_the_list_has_the_newest_first_and_only_what_is_asked_for(
    database: Database, clock: FakeClock, command: Command
) -> None:
    sent, dead = sent_mail(database, clock), dead_mail(database, clock)
    older, newer = queue(database, clock, 2)

    def listed(*arguments: str) -> list[str]:
        answer = command("list", "--json", *arguments)
        return [mail["id"] for mail in answer.document["mails"]]

    assert listed() == [newer, older, dead]
    assert listed("--limit", "2") == [newer, older]
    assert listed("--state", "queued") == [newer, older]
    assert listed("--state", "dead") == [dead]
    assert listed("--state", "sent") == [sent]
    assert listed("--state", "all") == [newer, older, dead, sent]


def test_an_empty_list_says_so(command: Command) -> None:
    assert command("list") == (0, "no mails\n", "")
    assert command("list", "--json").document == {"mails": []}


def test_addresses_and_usernames_are_masked_unless_asked_for(
    database: Database, clock: FakeClock, command: Command
) -> None:
    (mail_id,) = queue(database, clock)
    with database.write() as connection:
        connection.execute(update(User).values(username="Ann"))
        connection.execute(update(Verification).values(email="ann@mail.example.org"))
    for arguments in (["list"], ["list", "--json"], ["show", mail_id], ["show", mail_id, "--json"]):
        masked = command(*arguments).out
        assert "a***@m***.org" in masked
        assert "ann" not in masked.lower()
        assert "ann@mail.example.org" in command(*arguments, "--show-addresses").out
    shown = command("show", mail_id, "--json").document
    assert shown["username"] == "A***"
    assert command("show", mail_id, "--json", "--show-addresses").document["username"] == "Ann"


def test_no_token_and_no_id_of_one_is_shown(
    database: Database, clock: FakeClock, command: Command
) -> None:
    (mail_id,) = queue(database, clock)
    with database.read() as connection:
        token_id = connection.scalars(select(Verification.id)).one()
    token = SIGNER.token(token_id, SIGNER.fingerprint)
    for arguments in (["list"], ["show", mail_id]):
        for form in ([], ["--json"]):
            out = command(*arguments, *form, "--show-addresses").out
            assert token[:20] not in out
            assert token_id.hex() not in out.replace("-", "")
            assert SIGNER.fingerprint not in out


def test_all_about_one_mail_is_shown_a_line_a_field(
    database: Database, clock: FakeClock, command: Command
) -> None:
    mail_id = claimed_mail(database, clock)
    mail = command("show", mail_id, "--json").document
    assert (mail["state"], mail["attempts"], mail["next_try_at"]) == ("queued", 0, None)
    assert mail["claimed_by"] == "busy"
    until = datetime.fromisoformat(mail["claimed_until"])
    assert timedelta() < until - datetime.now(UTC) <= LEASE
    ends = datetime.fromisoformat(mail["token_expires_at"])
    assert ends - datetime.fromisoformat(mail["created_at"]) == LIFETIME
    lines = dict(line.split(":", 1) for line in command("show", mail_id).out.splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        "id": mail_id,
        "user id": mail["user_id"],
        "username": mail["username"],
        "address": mail["address"],
        "state": "queued",
        "created": mail["created_at"],
        "attempts": "0",
        "next try": "-",
        "claimed until": mail["claimed_until"],
        "claimed by": "busy",
        "sent": "-",
        "dead": "-",
        "last error": "-",
        "token's end": mail["token_expires_at"],
    }
    assert " claimed " in command("list").out.splitlines()[1]


def test_a_mail_without_its_verification_is_shown_all_the_same(
    database: Database, clock: FakeClock, command: Command
) -> None:
    mail_id = orphaned_mail(database, clock)
    assert re.search(r"^token's end: +gone$", command("show", mail_id).out, re.MULTILINE)
    mail = command("show", mail_id, "--json").document
    assert mail["token_expires_at"] is None
    assert mail["address"].endswith("@e***.com")


def test_an_unknown_mail_is_not_shown(command: Command) -> None:
    told = f"identity: {UNKNOWN}: there is no such mail\n"
    assert command("show", UNKNOWN) == (1, "", told)
    assert command("show", UNKNOWN, "--json") == (1, "", told)


def test_the_figures_of_an_empty_outbox(command: Command) -> None:
    assert command("stats", "--json").document == {
        "queued": 0,
        "oldest_queued_age_s": None,
        "delayed": 0,
        "dead": 0,
        "dead_by_last_error": [],
        "sent_last_24h": 0,
        "paused": None,
    }
    assert re.search(r"^paused: +no$", command("stats").out, re.MULTILINE)


def test_the_figures_count_each_state_and_tell_of_a_pause(
    database: Database, clock: FakeClock, command: Command
) -> None:
    sent_mail(database, FakeClock(clock.now() - timedelta(days=1)))
    sent_mail(database, clock)
    for reason in ("smtp 550 to RCPT", "smtp 554 to DATA", "smtp 550 to RCPT"):
        queue(database, clock)
        deliverer(database, clock, RecordingSender(PermanentFailure(reason))).deliver_due()
    queue(database, clock)
    deliverer(database, clock, RecordingSender(TemporaryFailure("smtp 451 to DATA"))).deliver_due()
    queue(database, clock)
    since = clock.now().replace(microsecond=0)
    with database.write() as connection:
        connection.execute(
            insert(OutboxPause).values(
                id=1, reason="smtp 535 to AUTH", since=since, probe_at=since + timedelta(minutes=5)
            )
        )
    figures = command("stats", "--json").document
    assert 3500 < figures.pop("oldest_queued_age_s") < 3700
    paused = figures.pop("paused")
    assert MOMENT.fullmatch(paused["since"])
    assert datetime.fromisoformat(paused["since"]) == since
    assert datetime.fromisoformat(paused["next_probe_at"]) == since + timedelta(minutes=5)
    assert paused["reason"] == "smtp 535 to AUTH"
    assert figures == {
        "queued": 2,
        "delayed": 1,
        "dead": 3,
        "dead_by_last_error": [
            {"last_error": "smtp 550 to RCPT", "count": 2},
            {"last_error": "smtp 554 to DATA", "count": 1},
        ],
        "sent_last_24h": 1,
    }
    text = command("stats").out
    for line in (
        r"queued: +2",
        r"oldest queued: +3[56]\d\d s",
        r"delayed: +1",
        r"dead: +3",
        r"  smtp 550 to RCPT: +2",
        r"sent in the last 24 h: +1",
        rf"paused: +since {paused['since']}: smtp 535 to AUTH; next probe \S+Z",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line
