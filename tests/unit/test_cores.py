"""How many cores there are where control groups limit them."""

import os
from pathlib import Path

import pytest

from identity.cores import usable_cores


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "membership"


def limit(group: Path, written: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(written)


@pytest.mark.parametrize(
    ("written", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # the second half of the second core would go to waste
        ("10000 100000\n", 1),
        ("max 100000\n", 64),
        ("9900000 100000\n", 64),
        ("", 64),
    ],
)
def test_a_containers_limit_counts(
    tmp_path: Path, membership: Path, written: str, cores: int
) -> None:
    membership.write_text("0::/\n")
    limit(tmp_path, written)
    assert usable_cores(tmp_path, membership) == cores


def test_the_narrowest_of_the_groups_counts(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/system.slice/identity.service\n")
    limit(tmp_path / "system.slice", "400000 100000\n")
    limit(tmp_path / "system.slice" / "identity.service", "800000 100000\n")
    assert usable_cores(tmp_path, membership) == 4


@pytest.mark.parametrize("written", ["", "9:name=systemd:/\n1:cpu:/\n", "0::/gone\n"])
def test_without_groups_the_machine_counts(tmp_path: Path, membership: Path, written: str) -> None:
    membership.write_text(written)
    assert usable_cores(tmp_path, membership) == 64
    assert usable_cores(tmp_path, tmp_path / "missing") == 64
