"""The README's calls, made by grpcurl as they are written there."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.fakes import FakeClock
from tests.mailbox import Mailbox
from tests.rpc.conftest import running

README = Path(__file__).parents[2] / "README.md"

grpcurl = shutil.which("grpcurl")
# CI installs it and says so: there it must not be missing.
needs_grpcurl = pytest.mark.skipif(
    grpcurl is None and "REQUIRE_GRPCURL" not in os.environ,
    reason="grpcurl is not installed: go install github.com/fullstorydev/grpcurl/cmd/grpcurl",
)


def written_calls() -> list[str]:
    """The grpcurl commands of the README, each as one line."""
    text = README.read_text().replace("\\\n", " ")
    return re.findall(r"^    (grpcurl .*)$", text, re.MULTILINE)


def call(command: str, endpoint: str, **placeholders: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the README against another endpoint."""
    for name, value in placeholders.items():
        command = command.replace(name, value)
    words = shlex.split(command.replace("127.0.0.1:50051", endpoint))
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@needs_grpcurl
def test_the_readmes_calls_work_as_written(
    sqlite_url: URL, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, verify, refused = written_calls()
    with Mailbox() as mailbox, running(sqlite_url, mailbox.port, clock, monkeypatch, {}) as service:
        endpoint = str(service.service.endpoint)
        registered = call(register, endpoint)
        assert registered.returncode == 0, registered.stderr
        assert json.loads(registered.stdout)["username"] == "ann"
        assert call(register, endpoint).stdout == registered.stdout
        verified = call(verify, endpoint, TOKEN=mailbox.next_token())
        assert json.loads(verified.stdout)["email"] == "ann@example.com"
        refusal = call(refused, endpoint)
    assert refusal.returncode != 0
    for shown in ("Some fields are invalid", "INVALID_FIELDS", "TOO_SHORT", "MALFORMED"):
        assert shown in refusal.stderr
