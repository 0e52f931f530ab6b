"""The units for systemd."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, assignments, settings, write_secrets

UNITS = DEPLOY / "systemd"
SERVICE_STOPS_WITHIN = 10  # seconds
# Of 100, as `systemd-analyze security` counts: 15 is 1.5, "OK".
MAXIMUM_EXPOSURE = "15"

systemd_analyze = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(systemd_analyze is None, reason="there is no systemd here")
both = pytest.mark.parametrize("unit", ["identity.service", "identity-migrate.service"])


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that exists."""
    for path in UNITS.glob("*.service"):
        text = path.read_text().replace("/opt/identity/bin/identity", sys.executable)
        (tmp_path / path.name).write_text(text)
    return tmp_path


def directives(unit: str, name: str) -> Iterator[str]:
    for found, value in assignments((UNITS / unit).read_text()):
        if found == name:
            yield value


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(systemd_analyze), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@needs_systemd
@both
def test_systemd_understands_every_line(units: Path, unit: str) -> None:
    done = analyze("verify", units / unit)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@both
def test_the_service_is_confined(units: Path, unit: str) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MAXIMUM_EXPOSURE}", units / unit)
    assert done.returncode == 0, done.stdout


@both
def test_the_service_takes_its_settings(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_over = {each.partition(":")[0] for each in directives(unit, "LoadCredential")}
    write_secrets(tmp_path / "credentials")
    environment = {}
    for assigned in directives(unit, "Environment"):
        name, _, value = assigned.partition("=")
        assert value.removeprefix("%d/") in handed_over
        environment[name] = value.replace("%d", str(tmp_path / "credentials"))
    if unit == "identity.service":
        written = (UNITS / "identity.env").read_text()
        environment |= {name: value.strip('"') for name, value in assignments(written)}
    found = settings(monkeypatch, environment)
    assert not found.is_embedded
    if unit == "identity.service":
        # A reload ends a process that has no workers.
        assert found.workers > 1


def test_the_service_stops_before_it_is_killed() -> None:
    (limit,) = directives("identity.service", "TimeoutStopSec")
    assert int(limit) > SERVICE_STOPS_WITHIN


def test_unusable_settings_are_not_tried_for_ever() -> None:
    assert list(directives("identity.service", "RestartPreventExitStatus")) == ["2"]


@both
def test_each_directive_that_can_be_given_once_is(unit: str) -> None:
    names = [name for name, _ in assignments((UNITS / unit).read_text())]
    several = {"Environment", "LoadCredential", "SystemCallFilter"}
    assert not {name for name in names if names.count(name) > 1} - several
    assert all(re.fullmatch(r"[A-Za-z]+|\[[A-Za-z]+\]", name) for name in names)
