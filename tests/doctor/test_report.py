"""What an operator sees of `identity doctor`, and what he never sees."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.doctor.conftest import KEYS, Doctor, Program
from tests.mailbox import Mailbox


def test_a_first_start_lacks_nothing_and_nothing_is_made(program: Program) -> None:
    answer = program()
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].split(maxsplit=2)[:2] == ["pass", "database"]
    assert lines[-1].endswith(" 0 fail")
    assert list(Path().iterdir()) == []


def test_a_line_each_with_its_mend_below_and_the_counts_at_the_end(
    program: Program,
) -> None:
    answer = program(DATABASE_URL="sqlite:///none.db", BCRYPT_COST=5)
    assert answer.code == 1
    lines = answer.out.splitlines()
    line = next(each for each in lines if " bcrypt " in each)
    mend = lines[lines.index(line) + 1]
    assert line.startswith("warn  bcrypt  ")
    assert mend.strip() == "-> set IDENTITY_BCRYPT_COST to 10 or more"
    assert mend.index("->") == line.index("cost 5")
    told = [each.split()[0] for each in lines[:-1]]
    counts = [f"{told.count(result)} {result}" for result in ("pass", "warn", "fail")]
    assert lines[-1] == ", ".join(counts)
    assert max(map(len, lines)) <= 100


def test_unusable_settings_are_told_as_by_every_other_command(program: Program) -> None:
    answer = program(BCRYPT_COST="many")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("identity: IDENTITY_BCRYPT_COST: ")


def test_other_arguments_are_misuse(program: Program) -> None:
    with pytest.raises(SystemExit, match="2"):
        program("--fix")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_no_secret_is_in_the_output(
    program: Program, postgres_url: URL, tmp_path: Path, valkey_port: int, arguments: tuple[str]
) -> None:
    """Where the login is refused, and where there is nobody to log in to."""
    keys = tmp_path / "keys"
    keys.write_text("canary-keys-0123456789-0123456789")
    keys.chmod(0o644)
    with Mailbox(login=("identity", "another")) as mailbox:
        for port in (None, 1):
            store = f"valkey://canary-user:canary-store@127.0.0.1:{port or valkey_port}/0"
            database = postgres_url.set(username="nobody", password="canary-database", port=port)
            answer = program(
                *arguments,
                DATABASE_URL=database.render_as_string(hide_password=False),
                SECRET_KEYS_FILE=keys,
                EMAIL_SENDER="smtp",
                SMTP_TLS="none",
                SMTP_PORT=port or mailbox.port,
                SMTP_USERNAME="identity",
                SMTP_PASSWORD="canary-mail",
                RATE_LIMIT_STORE=store,
            )
            assert answer.code == 1
            assert answer.out.count("fail") > 3
            assert "canary" not in answer.out + answer.err


def test_a_password_that_is_not_encoded_does_not_leak_by_way_of_the_host(program: Program) -> None:
    answer = program(DATABASE_URL="postgresql+psycopg://u:hunter@2nd-half@db/x", SECRET_KEYS=KEYS)
    assert "percent-encode the password" in answer.out
    assert "2nd-half" not in answer.out + answer.err


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_where_to_listen_is_free_or_taken_or_not_ours(doctor: Doctor, taken: int) -> None:
    assert doctor(LISTEN=f"127.0.0.1:{taken}").result_of("listen") == "warn"
    assert doctor(METRICS_LISTEN=f"127.0.0.1:{taken}").result_of("listen.metrics") == "warn"
    assert doctor(METRICS_LISTEN="127.0.0.1:0").result_of("listen.metrics") == "pass"
    foreign = doctor(LISTEN="192.0.2.1:50051", ALLOW_PLAINTEXT="1")  # RFC 5737: nobody's
    assert foreign.result_of("listen") == "fail"
    assert foreign.result_of("listen.plaintext") == "warn"


def test_few_descriptors_are_told() -> None:
    """In a process of its own: a limit cannot be raised again by everyone."""
    code = (
        "import resource; from identity import cli;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024));"
        "cli.main(['doctor'])"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("IDENTITY_")}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean, timeout=60
    )
    assert "warn  descriptors  at most 1024" in ended.stdout


def test_the_service_loads_none_of_it() -> None:
    code = (
        "import sys; import identity.cli, identity.server;"
        "print([name for name in sys.modules if 'doctor' in name])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    # The command line's arguments alone.
    assert ended.stdout == "['identity.commands.doctor_arguments']\n"
