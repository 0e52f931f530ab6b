"""Certificates and keys as they really are, by their dates, their fit and their modes."""

from pathlib import Path

import pytest

from tests.doctor.certificates import Issued, issue
from tests.doctor.conftest import Doctor, Report


def report(doctor: Doctor, issued: Issued, **settings: object) -> Report:
    return doctor(TLS_CERT=issued.cert, TLS_KEY=issued.key, **settings)


def test_a_good_certificate_is_told_with_its_name_and_its_end(
    doctor: Doctor, tmp_path: Path
) -> None:
    found = report(doctor, issue(tmp_path, "identity.example"))
    assert found.result_of("tls.certificate") == "pass"
    assert "for identity.example, until 2" in found.found("tls.certificate")
    assert "(89 days)" in found.found("tls.certificate")
    assert found.result_of("tls.key") == "pass"


@pytest.mark.parametrize(
    ("begins", "ends", "result", "told"),
    [
        (-9, 20, "warn", "days)"),
        (-9, -1, "fail", "expired on"),
        (1, 90, "fail", "not valid before"),
    ],
)
def test_dates_are_told(
    doctor: Doctor, tmp_path: Path, begins: int, ends: int, result: str, told: str
) -> None:
    authority = issue(tmp_path, "ca", is_authority=True)
    dated = issue(tmp_path, "a.example", begins=begins, ends=ends, is_authority=True)
    for found, name in (
        (report(doctor, dated), "tls.certificate"),
        (report(doctor, authority, TLS_CLIENT_CA=dated.cert), "tls.client_ca"),
    ):
        assert found.result_of(name) == result
        assert told in found.found(name)


def test_a_chain_ends_with_the_first_of_its_certificates_to_expire(
    doctor: Doctor, tmp_path: Path
) -> None:
    leaf = issue(tmp_path, "a.example", ends=90)
    above = issue(tmp_path, "ca", ends=10, is_authority=True)
    leaf.cert.write_text(leaf.cert.read_text() + above.cert.read_text())
    assert report(doctor, leaf).result_of("tls.certificate") == "warn"


def test_a_key_of_another_certificate_fails(doctor: Doctor, tmp_path: Path) -> None:
    one, other = issue(tmp_path, "a.example"), issue(tmp_path, "b.example")
    found = report(doctor, Issued(one.cert, other.key))
    assert found.result_of("tls.certificate") == "fail"
    assert "does not belong to" in found.found("tls.certificate")


def test_a_certificate_for_clients_is_none_for_a_server(doctor: Doctor, tmp_path: Path) -> None:
    found = report(doctor, issue(tmp_path, "a.example", for_clients=True))
    assert found.result_of("tls.certificate") == "fail"
    assert "purpose" in found.found("tls.certificate")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_files_that_hold_no_certificate_fail(
    doctor: Doctor, tmp_path: Path, content: bytes
) -> None:
    issued = issue(tmp_path, "a.example")
    empty = tmp_path / "empty.pem"
    empty.write_bytes(content)
    assert report(doctor, Issued(empty, issued.key)).result_of("tls.certificate") == "fail"
    assert report(doctor, Issued(issued.cert, empty)).result_of("tls.certificate") == "fail"
    assert report(doctor, issued, TLS_CLIENT_CA=empty).result_of("tls.client_ca") == "fail"


def test_files_that_are_missing_are_named(doctor: Doctor, tmp_path: Path) -> None:
    issued, missing = issue(tmp_path, "a.example"), tmp_path / "missing.pem"
    for found, name in (
        (report(doctor, Issued(missing, issued.key)), "tls.certificate"),
        (report(doctor, issued, TLS_CLIENT_CA=missing), "tls.client_ca"),
    ):
        assert found.checks[name][:2] == ("fail", f"{missing}: No such file or directory")


def test_a_key_that_others_can_read_fails(doctor: Doctor, tmp_path: Path) -> None:
    issued = issue(tmp_path, "a.example")
    issued.key.chmod(0o644)
    assert report(doctor, issued).result_of("tls.key") == "fail"


def test_only_authorities_can_vouch_for_clients(doctor: Doctor, tmp_path: Path) -> None:
    leaf, old = issue(tmp_path, "a.example"), issue(tmp_path, "b", ends=-0.5, is_authority=True)
    authority = issue(tmp_path, "c", is_authority=True)
    assert report(doctor, leaf, TLS_CLIENT_CA=leaf.cert).result_of("tls.client_ca") == "fail"
    authority.cert.write_text(authority.cert.read_text() + old.cert.read_text())
    found = report(doctor, leaf, TLS_CLIENT_CA=authority.cert)
    assert found.checks["tls.client_ca"][:2] == ("warn", f"{authority.cert}: one of 2 has expired")


@pytest.mark.parametrize(
    ("content", "result"),
    [
        (b'[[caller]]\nname = "a.example"\nmethods = []\n', "pass"),
        (b"[callers\n", "fail"),
        (b"[callers.gate]\n", "fail"),
        (b"\xff", "fail"),
    ],
)
def test_the_file_of_the_callers_must_be_usable(
    doctor: Doctor, tmp_path: Path, content: bytes, result: str
) -> None:
    issued = issue(tmp_path, "a.example", is_authority=True)
    callers = tmp_path / "callers.toml"
    callers.write_bytes(content)
    found = report(doctor, issued, TLS_CLIENT_CA=issued.cert, CALLERS_FILE=callers)
    assert found.result_of("callers") == result
