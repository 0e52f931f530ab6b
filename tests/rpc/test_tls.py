"""TLS as strangers meet it: handshakes refused and logged, certificates renewed under load."""

import json
import signal
import socket
import ssl
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.certificates import HOST, Authority, Issued, dns
from tests.processes import Program, Start, start
from tests.refusals import refused
from tests.requests import verification

__all__ = ["start"]

PATIENCE = 20  # seconds


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.fixture
def serving(
    start: Start, authority: Authority, tmp_path: Path
) -> Callable[[], tuple[Program, str]]:
    """Starts the program with certificates; it and its endpoint."""

    def begin() -> tuple[Program, str]:
        chain, key = authority.server().write(tmp_path, "server")
        ca, _ = authority.write(tmp_path, "authority")
        files = {"TLS_CERT": str(chain), "TLS_KEY": str(key), "TLS_CLIENT_CA": str(ca)}
        program = start(**files, LOG_FORMAT="json", RATE_LIMIT="100000/60s")
        return program, program.line(r"^listening on (\S+)$")

    return begin


def events(program: Program, name: str) -> list[dict[str, Any]]:
    """Ends the program; its lines of that event."""
    program.process.send_signal(signal.SIGTERM)
    code, stderr = program.end()
    assert code == 0
    found = [json.loads(line) for line in stderr.splitlines()]
    return [line for line in found if line["event"] == name]


@contextmanager
def stub(
    endpoint: str, authority: Authority, shown: Issued | None
) -> Iterator[IdentityServiceStub]:
    pair = (None, None) if shown is None else (shown.key_pem, shown.pem)
    credentials = grpc.ssl_channel_credentials(authority.pem, *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(endpoint, credentials, options) as channel:
        yield IdentityServiceStub(channel)


def code_of(call: Callable[..., object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(verification("x"), timeout=PATIENCE)
    code: grpc.StatusCode = caught.value.code()
    return code


def test_strangers_are_refused_each_in_its_way_and_logged(
    serving: Callable[[], tuple[Program, str]], authority: Authority
) -> None:
    program, endpoint = serving()
    strangers = {
        "no_certificate": None,
        "certificate_foreign": Authority.create("other").issue("x", dns("x.example.com")),
        "certificate_expired": authority.issue(
            "x", dns("x.example.com"), ends=timedelta(seconds=-1)
        ),
        "certificate_not_yet_valid": authority.issue(
            "x", dns("x.example.com"), begins=timedelta(days=1)
        ),
    }
    for shown in strangers.values():
        with stub(endpoint, authority, shown) as identity:
            assert code_of(identity.VerifyEmail) is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(endpoint) as channel:
        identity = IdentityServiceStub(channel)
        assert code_of(identity.VerifyEmail) is grpc.StatusCode.UNAVAILABLE
    speak_tls_1_1(endpoint)
    with stub(endpoint, authority, authority.issue("x", dns("x.example.com"))) as identity:
        assert refused(identity.VerifyEmail, verification("x")).reason == "TOKEN_INVALID"
    # A client that is refused may try again by itself before it gives up.
    reasons = [line["reason"] for line in events(program, "tls_handshake_refused")]
    assert set(reasons) == {*strangers, "not_tls", "tls_version"}


def speak_tls_1_1(endpoint: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    port = int(endpoint.rpartition(":")[2])
    with socket.create_connection((HOST, port), PATIENCE) as raw, pytest.raises(OSError):  # noqa: PT011 - told differently by each OpenSSL
        context.wrap_socket(raw)


def test_new_certificates_are_taken_up_under_load_without_a_failed_call(
    serving: Callable[[], tuple[Program, str]], authority: Authority, tmp_path: Path
) -> None:
    program, endpoint = serving()
    shown = authority.issue("x", dns("x.example.com"))
    outcomes: list[str] = []
    ending = threading.Event()

    def load() -> None:
        while not ending.is_set():  # each call on a connection of its own: with a handshake
            with stub(endpoint, authority, shown) as identity:
                outcomes.append(refused(identity.VerifyEmail, verification("x")).reason)

    callers = [threading.Thread(target=load) for _ in range(2)]
    for caller in callers:
        caller.start()
    seen = {serial_number(endpoint, authority, shown)}
    for _ in range(3):
        renewed = authority.server()
        renewed.write(tmp_path, "server")
        seen.add(serial_number(endpoint, authority, shown))
        assert renewed.certificate.serial_number in seen
    # A broken file is no reason to refuse anybody.
    (tmp_path / "server.pem").write_text("zzz")
    seen.add(serial_number(endpoint, authority, shown))
    ending.set()
    for caller in callers:
        caller.join(PATIENCE)
    assert len(seen) == 4
    assert len(outcomes) > 0
    assert set(outcomes) == {"TOKEN_INVALID"}
    program.process.send_signal(signal.SIGTERM)
    code, stderr = program.end()
    found = [json.loads(line)["event"] for line in stderr.splitlines()]
    assert code == 0
    assert found.count("certificates_renewed") == 3
    assert "certificates_unusable" in found


def serial_number(endpoint: str, authority: Authority, shown: Issued) -> int:
    """Of the certificate that the server shows in a new handshake."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    port = int(endpoint.rpartition(":")[2])
    with (
        socket.create_connection((HOST, port), PATIENCE) as raw,
        _showing(context, shown).wrap_socket(raw, server_hostname=HOST) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def _showing(context: ssl.SSLContext, shown: Issued) -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:
        context.load_cert_chain(*shown.write(Path(folder), "shown"))
    return context


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("server.pem", "IDENTITY_TLS_CERT: not a certificate in PEM and its key"),
        ("server.key", "IDENTITY_TLS_CERT: not a certificate in PEM and its key"),
        ("authority.pem", "IDENTITY_TLS_CLIENT_CA: not certificates in PEM"),
    ],
)
def test_unusable_files_stop_the_start_with_one_line(
    start: Start, authority: Authority, tmp_path: Path, broken: str, told: str
) -> None:
    chain, key = authority.server().write(tmp_path, "server")
    ca, _ = authority.write(tmp_path, "authority")
    (tmp_path / broken).write_text("zzz")
    settings = {"TLS_CERT": str(chain), "TLS_KEY": str(key), "TLS_CLIENT_CA": str(ca)}
    code, stderr = start(**settings).end()
    assert (code, len(stderr.splitlines())) == (2, 1)
    assert told in stderr


def test_a_key_that_is_another_certificates_stops_the_start(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    chain, _ = authority.server().write(tmp_path, "server")
    _, key = authority.server().write(tmp_path, "other")
    code, stderr = start(TLS_CERT=str(chain), TLS_KEY=str(key)).end()
    assert (code, len(stderr.splitlines())) == (2, 1)
    assert "IDENTITY_TLS_CERT" in stderr
