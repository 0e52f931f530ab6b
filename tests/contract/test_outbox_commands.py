"""`identity outbox`, on every database: what an operator changes, and what is refused."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.engine import URL

from identity import cli
from identity.database import Database
from identity.mail.administration import BATCH
from identity.mail.sender import TemporaryFailure
from identity.models import OutboxMail
from tests.fakes import FakeClock, RecordingSender
from tests.outbox import (
    UNKNOWN,
    claimed_mail,
    dead_mail,
    deliverer,
    expired_mail,
    orphaned_mail,
    outbox,
    queue,
    queue_mails,
    sent_mail,
    state,
    unknown_mail,
    verified_mail,
)
from tests.program import Command, use


@pytest.fixture
def clock() -> FakeClock:
    """An hour behind the wall clock, which the commands go by."""
    return FakeClock(datetime.now(UTC) - timedelta(hours=1))


def test_a_dead_mail_is_seen_mended_and_delivered(
    database: Database, clock: FakeClock, command: Command
) -> None:
    mail_id = dead_mail(database, clock)
    (heading, row) = command("list").out.splitlines()
    assert heading.split() == "ID STATE ADDRESS CREATED ATTEMPTS NEXT TRY LAST ERROR".split()
    assert row.split()[:2] == [mail_id, "dead"]
    assert row.split()[4:] == ["0", "-", *"smtp 550 to RCPT".split()]

    assert command("retry", mail_id) == (0, "retried: 1\n", "")
    assert state(database) == [(0, "smtp 550 to RCPT", "queued")]

    sender = RecordingSender()
    deliverer(database, FakeClock(datetime.now(UTC)), sender).deliver_due()
    assert [mail.outbox_id for mail in sender.mails] == [mail_id]
    assert command("list").out == "no mails\n"
    (mail,) = command("list", "--state", "sent", "--json").document["mails"]
    assert (mail["state"], mail["last_error"]) == ("sent", None)


def test_a_waiting_mail_is_due_at_once_with_no_attempts_counted(
    database: Database, clock: FakeClock, command: Command
) -> None:
    clock.advance(minutes=59, seconds=58)
    (mail_id,) = queue(database, clock)
    failures = [TemporaryFailure("smtp 451 to DATA")] * 6
    for _ in failures:
        deliverer(database, clock, RecordingSender(*failures)).deliver_due()
        clock.advance(minutes=10)
    now = FakeClock(datetime.now(UTC))
    assert state(database) == [(6, "smtp 451 to DATA", "queued")]
    assert outbox(database, now).claim(1).mails == []

    assert command("retry", mail_id).code == 0
    assert state(database) == [(0, "smtp 451 to DATA", "queued")]
    assert len(outbox(database, FakeClock(datetime.now(UTC))).claim(1).mails) == 1


def test_a_mail_of_a_deliverer_that_died_can_be_retried(
    database: Database, clock: FakeClock, command: Command
) -> None:
    (mail_id,) = queue(database, clock)
    outbox(database, clock).claim(1)  # an hour ago: its lease is over
    assert command("retry", mail_id) == (0, "retried: 1\n", "")


def test_all_dead_mails_are_retried_however_many(
    database: Database, clock: FakeClock, command: Command
) -> None:
    queue_mails(database, clock, BATCH + 1)
    with database.write() as connection:
        connection.execute(update(OutboxMail).values(due_at=None, dead_at=clock.now()))
    sent = sent_mail(database, clock)
    assert command("retry", "--all-dead") == (0, f"retried: {BATCH + 1}\n", "")
    assert command("stats", "--json").document["queued"] == BATCH + 1
    assert command("show", sent, "--json").document["state"] == "sent"
    assert command("retry", "--all-dead") == (0, "retried: 0\n", "")


@pytest.mark.parametrize(
    ("make", "reason", "told"),
    [
        (sent_mail, "sent", "it is sent already"),
        (unknown_mail, "unknown", "there is no such mail"),
        (orphaned_mail, "verification_gone", "its verification is gone"),
        (expired_mail, "token_over", "its token is over"),
        (verified_mail, "verified_already", "its user is verified already"),
    ],
)
def test_a_mail_that_must_not_be_retried_is_refused_and_the_others_are_done(
    database: Database,
    clock: FakeClock,
    command: Command,
    make: Callable[[Database, FakeClock], str],
    reason: str,
    told: str,
) -> None:
    refused = make(database, clock)
    before = state(database)
    assert command("retry", refused) == (1, "retried: 0\n", f"identity: {refused}: {told}\n")
    assert state(database) == before
    good = dead_mail(database, clock)
    answer = command("retry", refused, good, refused, "--json")
    assert (answer.code, answer.err) == (1, f"identity: {refused}: {told}\n")
    assert answer.document == {
        "retried": 1,
        "left_alone": [],
        "refused": [{"id": refused, "reason": reason}],
    }


def test_what_a_deliverer_is_at_is_left_to_it(
    database: Database, clock: FakeClock, command: Command
) -> None:
    mail_id = claimed_mail(database, clock)
    before = command("show", mail_id).out
    answer = command("retry", mail_id, "--json")
    assert (answer.code, answer.document["retried"]) == (0, 0)
    assert answer.document["left_alone"] == [{"id": mail_id, "reason": "claimed"}]
    told = f"identity: {mail_id}: a deliverer is at it right now: left alone\n"
    assert answer.err == told
    # It may be under way, and a promise that it is never sent would be none.
    assert command("drop", mail_id) == (1, "dropped: 0\n", told)
    assert command("show", mail_id).out == before


def test_a_dropped_mail_is_never_sent(
    database: Database, clock: FakeClock, command: Command
) -> None:
    first, second = queue(database, clock, 2)
    assert command("drop", first) == (0, "dropped: 1\n", "")
    sender = RecordingSender()
    deliverer(database, FakeClock(datetime.now(UTC)), sender).deliver_due()
    assert [mail.outbox_id for mail in sender.mails] == [second]
    (mail,) = command("list", "--state", "dead", "--json").document["mails"]
    assert (mail["id"], mail["last_error"]) == (first, "dropped by operator")
    assert mail["dead_at"] is not None


def test_a_drop_refuses_what_is_sent_or_unknown_and_keeps_the_reason_of_a_death(
    database: Database, clock: FakeClock, command: Command
) -> None:
    sent, dead = sent_mail(database, clock), dead_mail(database, clock)
    (queued,) = queue(database, clock)
    answer = command("drop", sent, UNKNOWN, dead, queued, "--json")
    assert answer.code == 1
    assert answer.document == {
        "dropped": 1,
        "left_alone": [{"id": dead, "reason": "dead"}],
        "refused": [{"id": sent, "reason": "sent"}, {"id": UNKNOWN, "reason": "unknown"}],
    }
    assert answer.err.splitlines() == [
        f"identity: {sent}: it is sent already",
        f"identity: {UNKNOWN}: there is no such mail",
        f"identity: {dead}: it is dead already",
    ]
    assert command("show", dead, "--json").document["last_error"] == "smtp 550 to RCPT"
    assert command("drop", dead).code == 0


@pytest.mark.parametrize("arguments", [["list"], ["show", UNKNOWN], ["drop", UNKNOWN], ["stats"]])
def test_a_schema_that_is_behind_is_refused_in_one_line(
    empty_database_url: URL,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    use(monkeypatch, empty_database_url)
    assert cli.main(["outbox", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"identity: the database is at revision none, this release needs \d{4}: "
        r"run `identity migrate`\n",
        err,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "list --limit 0",
        "list --limit 10001",
        "list --limit ten",
        "list --state lost",
        "show",
        "retry",
        "retry --all-dead an-id",
        "drop",
        "drop line\nend",
        "stats an-id",
    ],
)
def test_misuse_is_told_before_the_database_is_asked(
    capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["outbox", *arguments.split(" ")] if arguments else ["outbox"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: identity")


def program(url: URL, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IDENTITY_")}
    environment["IDENTITY_DATABASE_URL"] = url.render_as_string(hide_password=False)
    return subprocess.Popen(
        [sys.executable, "-m", "identity", "outbox", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def test_the_program_needs_no_keys_and_makes_none(sqlite_url: URL, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    process = program(sqlite_url, tmp_path, "stats")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("queued: ")
    assert set(tmp_path.iterdir()) == before


def test_a_reader_that_has_enough_is_no_traceback(sqlite_url: URL, tmp_path: Path) -> None:
    process = program(sqlite_url, tmp_path, "stats")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == "identity: cannot write to stdout: Broken pipe\n"
    assert process.wait(30) == 1
