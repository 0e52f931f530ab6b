"""The store of the rate limit: none, a real server, and none that answers."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import valkey

from tests.doctor.certificates import issue
from tests.doctor.conftest import Doctor
from tests.mailbox import Mailbox


@pytest.fixture
def server(valkey_port: int) -> Iterator[valkey.Valkey]:
    """An administrator's connection; what was configured is undone."""
    with valkey.Valkey(port=valkey_port, username="default") as client:
        yield client
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.acl_deluser("identity")


def test_windows_in_memory_need_nothing(doctor: Doctor) -> None:
    assert doctor().result_of("limits") == "pass"


def test_a_server_is_told_with_its_version_and_latency(
    doctor: Doctor, server: valkey.Valkey, valkey_port: int
) -> None:
    found = doctor(RATE_LIMIT_STORE=f"valkey://127.0.0.1:{valkey_port}")
    assert found.result_of("limits") == "pass"
    info: Any = server.info()
    assert f"version {info['valkey_version']}" in found.found("limits")
    assert found.found("limits").endswith(" ms")
    assert found.found("limits.eviction") == "no maxmemory: nothing is evicted"


@pytest.mark.parametrize(
    ("policy", "result"),
    [("noeviction", "pass"), ("volatile-ttl", "warn"), ("allkeys-lru", "warn")],
)
def test_a_server_that_evicts_counts_is_a_warning(
    doctor: Doctor, server: valkey.Valkey, valkey_port: int, policy: str, result: str
) -> None:
    server.config_set("maxmemory", "64mb")
    server.config_set("maxmemory-policy", policy)
    found = doctor(RATE_LIMIT_STORE=f"valkey://127.0.0.1:{valkey_port}")
    assert found.result_of("limits.eviction") == result
    assert policy in found.found("limits.eviction")


def test_a_login_is_used_and_its_refusal_told(
    doctor: Doctor, server: valkey.Valkey, valkey_port: int
) -> None:
    server.acl_setuser("identity", enabled=True, passwords=["+right"], commands=["+ping"])
    found = doctor(RATE_LIMIT_STORE=f"valkey://identity:right@127.0.0.1:{valkey_port}")
    assert found.result_of("limits") == "pass"
    assert found.result_of("limits.eviction") == "warn"
    refused = doctor(RATE_LIMIT_STORE=f"valkey://identity:wrong@127.0.0.1:{valkey_port}")
    assert refused.result_of("limits") == "fail"
    assert refused.found("limits").endswith("login refused")


def test_a_server_that_is_not_there_fails(doctor: Doctor) -> None:
    found = doctor(RATE_LIMIT_STORE="valkey://127.0.0.1:1")
    assert found.checks["limits"][:2] == (
        "fail",
        "Valkey, 127.0.0.1:1: cannot be reached: ConnectionRefusedError",
    )
    assert "limits.eviction" not in found.checks


def test_over_tls_the_certificate_and_its_name_are_verified(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = issue(tmp_path, "localhost", is_authority=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*issued)
    # Any server over TLS will do: it is not spoken to.
    with Mailbox(tls=context, tls_from_start=True) as server:
        unknown = doctor(RATE_LIMIT_STORE=f"valkeys://localhost:{server.port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(issued.cert))
        other_name = doctor(RATE_LIMIT_STORE=f"valkeys://127.0.0.1:{server.port}")
    assert unknown.found("limits").endswith("SSLCertVerificationError")
    assert other_name.found("limits").endswith("SSLCertVerificationError")
