"""Keys that are missing or can be guessed, and files that others can read."""

import os
from pathlib import Path

import pytest

from identity import embedded
from tests.doctor.conftest import KEYS, Doctor

ELSEWHERE = "sqlite:///elsewhere.db"


def test_keys_are_required_with_a_database_of_ones_own(doctor: Doctor) -> None:
    assert doctor().result_of("keys") == "pass"
    assert doctor(DATABASE_URL=ELSEWHERE).result_of("keys") == "fail"
    assert doctor(DATABASE_URL=ELSEWHERE, SECRET_KEYS=KEYS).result_of("keys") == "pass"


@pytest.mark.parametrize("weak", ["k" * 40, "changeme" * 5, "0123456789" * 4, "ab" * 16 + "a"])
def test_keys_that_can_be_guessed_are_told_by_their_number(doctor: Doctor, weak: str) -> None:
    found = doctor(SECRET_KEYS=f"{KEYS},{weak}")
    assert found.result_of("keys") == "warn"
    assert "key 2 of 2" in found.found("keys")
    assert weak not in found.found("keys")


def test_the_keys_made_by_the_first_start_pass(doctor: Doctor) -> None:
    embedded.make_directory()
    embedded.keys()
    found = doctor()
    assert found.found("keys") == "var/secret.keys: 1, the first one signs"
    assert found.result_of("keys.file") == "pass"
    embedded.KEY_FILE.chmod(0o644)
    assert doctor().result_of("keys.file") == "fail"
    embedded.KEY_FILE.write_text("short")
    found = doctor()
    assert found.result_of("keys") == "fail"
    assert "at least 32 characters" in found.found("keys")


@pytest.mark.parametrize(
    ("mode", "result"),
    [(0o600, "pass"), (0o400, "pass"), (0o640, "warn"), (0o604, "fail"), (0o666, "fail")],
)
@pytest.mark.parametrize(
    ("setting", "content"),
    [
        ("SECRET_KEYS", KEYS),
        ("DATABASE_URL", ELSEWHERE),
        ("RATE_LIMIT_STORE", "valkey://127.0.0.1:1"),
    ],
)
def test_a_secret_file_is_for_its_owner(
    doctor: Doctor, tmp_path: Path, setting: str, content: str, mode: int, result: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(content)
    secret.chmod(mode)
    found = doctor(**{f"{setting}_FILE": secret})
    assert found.result_of(f"files.IDENTITY_{setting}_FILE") == result
    assert f"{mode:04o}" in found.found(f"files.IDENTITY_{setting}_FILE")


@pytest.mark.parametrize(("mode", "result"), [(0o440, "pass"), (0o444, "warn"), (0o644, "warn")])
def test_a_secret_mounted_by_kubernetes_is_seen_by_its_container_alone(
    doctor: Doctor, tmp_path: Path, mode: int, result: str
) -> None:
    mounted = tmp_path / "mounted"
    version = mounted / "..2026_11_24"
    version.mkdir(parents=True)
    (version / "keys").write_text(KEYS)
    (version / "keys").chmod(mode)
    (mounted / "..data").symlink_to(version.name)
    (mounted / "keys").symlink_to("..data/keys")
    found = doctor(SECRET_KEYS_FILE=mounted / "keys")
    result_now, _, mend = found.checks["files.IDENTITY_SECRET_KEYS_FILE"]
    assert result_now == result
    assert mend is None or "defaultMode" in mend


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_root_that_the_services_group_may_read_is_meant_so(
    doctor: Doctor, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(KEYS)
    secret.chmod(0o640)
    os.chown(secret, 65534, os.getegid())
    found = doctor(SECRET_KEYS_FILE=secret)
    assert found.result_of("files.IDENTITY_SECRET_KEYS_FILE") == "pass"
