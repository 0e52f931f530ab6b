"""Senders as they really are: an SMTP server, moto's SES, and a front for what moto lacks."""

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from aiosmtpd.smtp import Envelope, Session
from moto.server import ThreadedMotoServer

from tests.doctor.certificates import issue
from tests.doctor.conftest import KEYS, Doctor
from tests.mailbox import Mailbox

REGION = "eu-north-1"  # of these tests alone: moto keeps what it is told, by region
GOOD: dict[str, Any] = {
    "SendingEnabled": True,
    "ProductionAccessEnabled": True,
    "EnforcementStatus": "HEALTHY",
    "SendQuota": {"Max24HourSend": 50000.0, "SentLast24Hours": 3000.0, "MaxSendRate": 14.0},
}
SMTP = {
    "EMAIL_SENDER": "smtp",
    "EMAIL_FROM": "identity@mail.example.com",
    "VERIFICATION_URL": "https://example.com/?token={token}",
}
SES = {**SMTP, "EMAIL_SENDER": "ses", "SES_REGION": REGION}


def test_mails_to_the_console_are_for_trying_out(doctor: Doctor) -> None:
    assert doctor().result_of("mail") == "pass"
    elsewhere = doctor(DATABASE_URL="sqlite:///other.db", SECRET_KEYS=KEYS)
    assert elsewhere.result_of("mail") == "warn"


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS for the name localhost, and the authority that vouches for it."""
    issued = issue(tmp_path, "localhost", is_authority=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*issued)
    return context, issued.cert


def test_a_server_is_asked_up_to_its_login_and_gets_no_mail(
    doctor: Doctor, tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = tls
    login = {"SMTP_USERNAME": "identity", "SMTP_PASSWORD": "right"}
    with Mailbox(tls=context, login=("identity", "right")) as mailbox:
        settings = {**SMTP, **login, "SMTP_PORT": mailbox.port}
        untrusted = doctor(**settings)
        assert "SSLCertVerificationError" in untrusted.found("mail")

        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        where = f"SMTP, localhost:{mailbox.port}"
        good = doctor(**settings)
        assert good.checks["mail"] == ("pass", f"{where}, starttls, logged in", None)
        other_name = doctor(**{**settings, "SMTP_HOST": "127.0.0.1"})
        assert "SSLCertVerificationError" in other_name.found("mail")
        refused = doctor(**{**settings, "SMTP_PASSWORD": "wrong"})
        assert refused.found("mail") == f"{where}: smtp SMTPAuthenticationError 535"
        assert "IDENTITY_SMTP_PASSWORD" in (refused.checks["mail"][2] or "")
        assert mailbox.is_empty()


def test_a_server_over_tls_from_the_first_byte_is_verified(
    doctor: Doctor, tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = tls
    with Mailbox(tls=context, tls_from_start=True) as mailbox:
        settings = {**SMTP, "SMTP_PORT": mailbox.port, "SMTP_TLS": "tls"}
        assert "SSLCertVerificationError" in doctor(**settings).found("mail")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert doctor(**settings).found("mail").endswith("tls, no login")


def test_a_server_without_starttls_and_one_that_is_not_there_fail(doctor: Doctor) -> None:
    with Mailbox() as mailbox:
        plain = doctor(**SMTP, SMTP_PORT=mailbox.port, SMTP_TLS="none")
        assert plain.result_of("mail") == "pass"  # on this machine
        found = doctor(**SMTP, SMTP_PORT=mailbox.port)
        assert "IDENTITY_SMTP_TLS" in (found.checks["mail"][2] or "")
    gone = doctor(**SMTP, SMTP_PORT=mailbox.port)
    assert gone.result_of("mail") == "fail"
    assert "ConnectionRefusedError" in gone.found("mail")


class Unwelcoming(Mailbox):
    """Greets, and refuses whoever says hello."""

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's names, and it counts the parameters
        self,
        _server: object,
        _session: Session,
        _envelope: Envelope,
        _name: str,
        _replies: list[str],
    ) -> list[str]:
        return ["550 go away"]

    async def handle_HELO(self, *_: object) -> str:  # noqa: N802
        return "550 go away"


def test_a_server_that_refuses_us_by_our_name_fails(doctor: Doctor) -> None:
    with Unwelcoming() as mailbox:
        found = doctor(**SMTP, SMTP_PORT=mailbox.port, SMTP_TLS="none")
    assert found.found("mail").endswith("smtp SMTPHeloError 550")


def test_defaults_that_no_reader_can_use_are_a_warning(doctor: Doctor) -> None:
    found = doctor(EMAIL_SENDER="smtp", SMTP_PORT=1)
    assert (found.result_of("mail.from"), found.result_of("mail.link")) == ("warn", "warn")
    found = doctor(**{**SMTP, "VERIFICATION_URL": "http://example.com/{token}"}, SMTP_PORT=1)
    assert found.result_of("mail.link") == "warn"
    assert "plaintext" in found.found("mail.link")


class Front(ThreadingHTTPServer):
    """SES by its paths: what GET /v2/email/<path> answers, with a status each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}


class _Handler(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        path = self.path.removeprefix("/v2/email/").replace("%40", "@")
        status, body = self.server.answers.get(path, (404, {"__type": "NotFoundException"}))
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("x-amzn-ErrorType", str(body.get("__type", "")))
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")


@pytest.fixture
def front(doctor: Doctor, credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    # After `doctor`, which clears the environment.
    with Front() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        server.answers["account"] = (200, GOOD)
        server.answers["identities/example.com"] = (200, {"VerifiedForSendingStatus": True})
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_account_in_order_passes_by_a_domain_above_the_address(
    doctor: Doctor, front: Front
) -> None:
    front.answers["configuration-sets/transactional"] = (200, {})
    found = doctor(**SES, SES_CONFIGURATION_SET="transactional")
    told = {name: check[:2] for name, check in found.checks.items() if name.startswith("mail")}
    assert told == {
        "mail": ("pass", f"SES, {REGION}, sending is on, out of the sandbox"),
        "mail.quota": ("pass", "47000 of 50000 mails left in 24 h"),
        "mail.identity": ("pass", "example.com is verified"),
        "mail.configuration_set": ("pass", "transactional"),
        "mail.from": ("pass", "identity@mail.example.com"),
        "mail.link": ("pass", "links lead to https://example.com"),
    }


@pytest.mark.parametrize(
    ("change", "name", "result"),
    [
        ({"SendingEnabled": False}, "mail", "fail"),
        ({"EnforcementStatus": "SHUTDOWN"}, "mail", "fail"),
        ({"EnforcementStatus": "PROBATION"}, "mail", "warn"),
        ({"ProductionAccessEnabled": False}, "mail", "warn"),
        ({"SendQuota": {"Max24HourSend": 200.0, "SentLast24Hours": 200.0}}, "mail.quota", "fail"),
        ({"SendQuota": {"Max24HourSend": 200.0, "SentLast24Hours": 190.0}}, "mail.quota", "warn"),
        ({"SendQuota": {"Max24HourSend": -1.0, "SentLast24Hours": 9.0}}, "mail.quota", "pass"),
    ],
)
def test_an_account_that_holds_mails_up_is_told(
    doctor: Doctor, front: Front, change: dict[str, Any], name: str, result: str
) -> None:
    front.answers["account"] = (200, {**GOOD, **change})
    assert doctor(**SES).result_of(name) == result


def test_a_sender_that_is_not_verified_fails(doctor: Doctor, front: Front) -> None:
    pending = (200, {"VerifiedForSendingStatus": False})
    front.answers["identities/example.com"] = pending
    found = doctor(**SES)
    assert found.checks["mail.identity"][:2] == ("fail", "example.com is not verified yet")


def test_a_role_that_may_only_send_is_no_fault(doctor: Doctor, front: Front) -> None:
    denied = (403, {"__type": "AccessDeniedException", "message": "canary"})
    front.answers = dict.fromkeys(
        ["account", "identities/identity@mail.example.com", "configuration-sets/x"], denied
    )
    found = doctor(**SES, SES_CONFIGURATION_SET="x")
    for name in ("mail", "mail.identity", "mail.configuration_set"):
        assert found.result_of(name) == "warn"
        assert "is not allowed" in found.found(name)


def test_credentials_that_are_refused_or_missing_fail_once(
    doctor: Doctor, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.answers["account"] = (403, {"__type": "InvalidClientTokenId", "message": "canary"})
    found = doctor(**SES)
    assert found.checks["mail"][:2] == ("fail", "SES: InvalidClientTokenId")
    assert "mail.identity" not in found.checks
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert doctor(**SES).checks["mail"][:2] == ("fail", "SES: NoCredentialsError")


def test_no_region_and_no_server_fail(
    doctor: Doctor, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor(**SMTP | {"EMAIL_SENDER": "ses"}).found("mail") == "SES: no region"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert doctor(**SES).checks["mail"][:2] == ("fail", "SES: EndpointConnectionError")


def test_motos_identities_and_configuration_sets_are_read(
    doctor: Doctor, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths and shapes that are not our own. moto has no GetAccount, verifies nobody,
    and says of every configuration set that its sending is off."""
    settings = {**SES, "SES_CONFIGURATION_SET": "transactional"}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        unknown = doctor(**settings)
        client = boto3.client("sesv2", region_name=REGION)
        client.create_email_identity(EmailIdentity="example.com")
        client.create_configuration_set(ConfigurationSetName="transactional")
        known = doctor(**settings)
    finally:
        server.stop()
    assert unknown.checks["mail"][:2] == ("fail", "SES: 404")
    assert unknown.found("mail.identity").startswith("neither identity@mail.example.com")
    assert "is not known" in unknown.found("mail.configuration_set")
    assert known.found("mail.identity") == "example.com is not verified yet"
    assert known.found("mail.configuration_set") == "transactional: sending is off"
