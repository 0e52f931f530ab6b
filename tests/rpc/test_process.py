"""The program itself, as a process: start, refusals to start, signals."""

import signal
import socket
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from identity.v1 import identity_pb2_grpc
from tests.processes import PATIENCE, Program, Start, start
from tests.refusals import refused
from tests.requests import registration, verification

__all__ = ["start"]


def test_the_embedded_start_needs_nothing_and_keeps_its_secrets_to_itself(
    start: Start, tmp_path: Path
) -> None:
    program = start()
    endpoint = program.line(r"^listening on (127\.0\.0\.1:\d+)$")
    with grpc.insecure_channel(endpoint) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        registered = stub.Register(registration())
        token = program.line(r"token=([A-Za-z0-9_-]{64})$")
        assert stub.VerifyEmail(verification(token)).id == registered.id
    program.process.send_signal(signal.SIGTERM)
    code, stderr = program.end()
    assert code == 0
    assert token not in stderr
    key = tmp_path / "var" / "secret.keys"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_a_link_outlives_a_restart(start: Start) -> None:
    program = start()
    with grpc.insecure_channel(program.line(r"^listening on (\S+)$")) as channel:
        identity_pb2_grpc.IdentityServiceStub(channel).Register(registration())
        token = program.line(r"token=([A-Za-z0-9_-]{64})$")
    program.process.send_signal(signal.SIGINT)
    assert program.end()[0] == 0
    program = start()
    with grpc.insecure_channel(program.line(r"^listening on (\S+)$")) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        assert stub.VerifyEmail(verification(token)).username == "ann"


def test_a_call_that_has_begun_ends_well_when_the_service_is_told_to_stop(start: Start) -> None:
    program = start(BCRYPT_COST="14")  # a second and more for a hash
    with grpc.insecure_channel(program.line(r"^listening on (\S+)$")) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        # The first answer shows that the channel is up; the second call is then on its way.
        refused(stub.VerifyEmail, verification("x"))
        begun = stub.Register.future(registration())
        refused(stub.VerifyEmail, verification("x"))
        program.process.send_signal(signal.SIGTERM)
        assert begun.result(PATIENCE).username == "ann"
    assert program.end()[0] == 0


def test_a_full_queue_of_hashes_does_not_hold_up_the_end(start: Start) -> None:
    program = start(BCRYPT_COST="13", RATE_LIMIT="1000/60s")
    with grpc.insecure_channel(program.line(r"^listening on (\S+)$")) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        refused(stub.VerifyEmail, verification("x"))
        begun = [
            stub.Register.future(registration(f"user{n}", f"u{n}@example.com")) for n in range(64)
        ]
        refused(stub.VerifyEmail, verification("x"))
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(10) == 0
        outcomes = {call.code() for call in begun}
    assert grpc.StatusCode.OK in outcomes
    assert "unforeseen" not in program.end()[1]


def test_a_port_in_use_is_an_error(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, stderr = start(LISTEN=f"127.0.0.1:{port}").end()
    assert code == 1
    assert f"identity: IDENTITY_LISTEN: cannot listen on 127.0.0.1:{port}" in stderr


def test_a_second_server_on_the_same_port_is_an_error(start: Start) -> None:
    endpoint = start().line(r"^listening on (\S+)$")
    code, stderr = start(LISTEN=endpoint).end()
    assert (code, len(stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"COLOUR": "red"}, "IDENTITY_COLOUR: there is no such setting"),
        ({"LISTEN": "nowhere"}, "IDENTITY_LISTEN: must be HOST:PORT"),
        ({"TLS_CERT": "cert.pem"}, "IDENTITY_TLS_CERT and IDENTITY_TLS_KEY go together"),
        ({"SECRET_KEYS": "hunter2"}, "IDENTITY_SECRET_KEYS: must be keys of at least 32"),
    ],
)
def test_an_unusable_setting_stops_the_start_with_one_line(
    start: Start, settings: dict[str, str], told: str
) -> None:
    code, stderr = start(**settings).end()
    assert code == 2
    (line,) = stderr.splitlines()
    assert line.startswith(f"identity: {told}")
    assert "hunter2" not in line


def test_another_database_needs_keys_and_a_migration(start: Start, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    code, stderr = start(DATABASE_URL=url).end()
    assert (code, stderr.splitlines()[0]) == (
        2,
        "identity: IDENTITY_SECRET_KEYS: required with a database other than the default one",
    )
    code, stderr = start(DATABASE_URL=url, SECRET_KEYS="k" * 32).end()
    assert code == 1
    assert "run `identity migrate`" in stderr
    assert start("migrate", DATABASE_URL=url).end()[0] == 0
    program = start(DATABASE_URL=url, SECRET_KEYS="k" * 32)
    assert program.line(r"^listening on (\S+)$")
    program.process.send_signal(signal.SIGTERM)
    code, stderr = program.end()
    assert code == 0
    assert "mail_goes_to_the_console" in stderr


def one_line(program: Program) -> str:
    """The only line on stderr of a program that failed to start."""
    code, stderr = program.end()
    assert code == 1
    (line,) = stderr.splitlines()
    assert line.startswith("identity: IDENTITY_DATABASE_URL: ")
    assert "hunter2" not in line
    return line


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_what_is_wrong_with_a_database_is_one_line(
    start: Start, tmp_path: Path, command: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for url in (
        f"postgresql+psycopg://someone:hunter2@127.0.0.1:{port}/x",
        f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}",
        f"sqlite:///{Path(__file__)}",
    ):
        assert one_line(start(command, DATABASE_URL=url, SECRET_KEYS="k" * 32))


def test_a_schema_that_is_ahead_is_served_with_a_warning_and_left_alone(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "other.db"
    settings = {"DATABASE_URL": f"sqlite:///{path}", "SECRET_KEYS": "k" * 32}
    assert start("migrate", **settings).end()[0] == 0
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    program = start("migrate", **settings)
    assert program.line(r"^(.*)$").endswith("newer than this release: nothing to do")
    assert program.end()[0] == 0
    program = start(**settings)
    assert program.line(r"^listening on (\S+)$")
    program.process.send_signal(signal.SIGTERM)
    code, stderr = program.end()
    assert code == 0
    assert "schema_ahead" in stderr


def test_a_service_without_a_stderr_registers_and_delivers(start: Start) -> None:
    program = start("serve", stderr_closed="")
    with grpc.insecure_channel(program.line(r"^listening on (\S+)$")) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        for name in ("ann", "bob"):
            stub.Register(registration(name, f"{name}@example.com"))
            token = program.line(r"token=([A-Za-z0-9_-]{64})$")
            assert stub.VerifyEmail(verification(token)).username == name


def test_of_several_first_starts_in_one_folder_all_come_up(start: Start) -> None:
    programs = [start() for _ in range(3)]
    for program in programs:
        assert program.line(r"^listening on (\S+)$")
        program.process.send_signal(signal.SIGTERM)
        assert program.end()[0] == 0


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_PROFILE", "nowhere"), ("AWS_ENDPOINT_URL", "nonsense")]
)
def test_what_is_wrong_with_the_settings_of_boto3_is_one_line(
    start: Start, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, stderr = start(EMAIL_SENDER="ses", SES_REGION="eu-central-1").end()
    (line,) = stderr.splitlines()
    assert code == 2
    assert line.startswith("identity: IDENTITY_EMAIL_SENDER: boto3's settings are unusable")
    assert value not in line
