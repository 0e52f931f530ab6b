"""The process dies by SIGKILL at the worst moments; the mail comes all the same."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from identity.v1 import identity_pb2_grpc
from tests.mailbox import Mailbox, token_in
from tests.processes import Program, Start, start
from tests.requests import registration, verification

__all__ = ["start"]

KEYS = "k" * 32


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'identity.db'}",
        "SECRET_KEYS": KEYS,
        "EMAIL_SENDER": "smtp",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_TLS": "none",
    }


def stub_of(program: Program) -> tuple[grpc.Channel, identity_pb2_grpc.IdentityServiceStub]:
    channel = grpc.insecure_channel(program.line(r"^listening on (\S+)$"))
    return channel, identity_pb2_grpc.IdentityServiceStub(channel)


def kill(program: Program) -> None:
    program.process.kill()
    program.end()


def let_the_lease_end(path: Path) -> None:
    """Makes what the dead process held due, as a minute's waiting would."""
    with closing(sqlite3.connect(path, timeout=10)) as database:
        database.execute("UPDATE outbox SET due_at = '2000-01-01 00:00:00.000000'")
        database.commit()


def restarted_and_verified(
    start: Callable[..., Program], settings: dict[str, str], token: Callable[[], str]
) -> None:
    program = start(**settings)
    channel, stub = stub_of(program)
    with channel:
        assert stub.VerifyEmail(verification(token())).username == "ann"
    kill(program)


def test_killed_after_the_commit_and_before_the_sending(
    start: Start, settings: dict[str, str], tmp_path: Path
) -> None:
    start("migrate", **settings).end()
    with Mailbox() as down:
        settings["SMTP_PORT"] = str(down.port)
    program = start(**settings)
    channel, stub = stub_of(program)
    with channel:
        stub.Register(registration())
    kill(program)
    with Mailbox(int(settings["SMTP_PORT"])) as up:
        let_the_lease_end(tmp_path / "identity.db")
        restarted_and_verified(start, settings, up.next_token)
        assert up.is_empty()


def test_a_repeat_after_the_kill_gets_the_first_reply(
    start: Start, settings: dict[str, str]
) -> None:
    """As when the process died between the commit and the reply."""
    start("migrate", **settings).end()
    request = registration(request_id="0b7b6c53-0e0c-4b3e-9d9f-6a6f3b1f2c58")
    replies = []
    with Mailbox() as mailbox:
        settings["SMTP_PORT"] = str(mailbox.port)
        for _ in range(2):
            program = start(**settings)
            channel, stub = stub_of(program)
            with channel:
                replies.append(stub.Register(request))
                if not replies[1:]:
                    mailbox.next()
            kill(program)
        assert mailbox.is_empty()
    assert replies[0] == replies[1]


def test_killed_after_the_provider_accepted_and_before_the_mark(
    start: Start, settings: dict[str, str], tmp_path: Path
) -> None:
    """The mail comes twice, with the same link."""
    start("migrate", **settings).end()
    with Mailbox() as mailbox:
        settings["SMTP_PORT"] = str(mailbox.port)
        mailbox.hold_answers()
        program = start(**settings)
        channel, stub = stub_of(program)
        with channel:
            stub.Register(registration())
        first = token_in(mailbox.next())  # accepted, and the answer is held back
        kill(program)
        mailbox.release_answers()
        let_the_lease_end(tmp_path / "identity.db")
        second: list[str] = []

        def token() -> str:
            second.append(mailbox.next_token())
            return second[0]

        restarted_and_verified(start, settings, token)
    assert second == [first]
