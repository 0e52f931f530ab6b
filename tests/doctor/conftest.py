"""`identity doctor`, run in this process on an environment, and what it reports."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from identity import cli
from tests.program import Answer
from tests.valkey import Valkey

KEYS = "0123456789abcdefghijklmnopqrstuv"


class Report(NamedTuple):
    """What one run says, its checks by name, each as (result, found, mend)."""

    code: int
    result: str
    checks: Mapping[str, tuple[str, str, str | None]]
    err: str

    def result_of(self, name: str) -> str:
        return self.checks[name][0]

    def found(self, name: str) -> str:
        return self.checks[name][1]


Program = Callable[..., Answer]
Doctor = Callable[..., Report]


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Program:
    """Runs the command with these settings (named without the prefix) in an empty directory."""
    for name in list(os.environ):
        if name.upper().startswith(("IDENTITY_", "AWS_")):
            monkeypatch.delenv(name)
    directory = tmp_path / "place"
    directory.mkdir()
    monkeypatch.chdir(directory)

    def run(*arguments: str, **settings: object) -> Answer:
        with monkeypatch.context() as environment:
            for name, value in {"LISTEN": "127.0.0.1:0", **settings}.items():
                environment.setenv(f"IDENTITY_{name}", str(value))
            capsys.readouterr()
            code = cli.main(["doctor", *arguments])
            return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def doctor(program: Program) -> Doctor:
    """The same, as a report."""

    def run(**settings: object) -> Report:
        answer = program("--json", **settings)
        document = answer.document
        assert document.keys() == {"checks", "result"}
        checks = {
            each["name"]: (each["result"], each["found"], each["mend"])
            for each in document["checks"]
        }
        assert len(checks) == len(document["checks"]), "a name stands for one check"
        for result, found, mend in checks.values():
            assert found
            assert (mend is None) == (result == "pass")
        assert (answer.code == 1) == (document["result"] == "fail")
        return Report(answer.code, document["result"], checks, answer.err)

    return run


@pytest.fixture
def valkey_port(valkey: Valkey) -> int:
    """The port of a real server on loopback."""
    return valkey.port
