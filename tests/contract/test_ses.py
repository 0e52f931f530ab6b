"""SES by its real client over HTTP: moto's server, and a front that answers every error."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.server import ThreadedMotoServer
from moto.ses.models import ses_backends

from identity.mail.sender import (
    AccountFailure,
    DeliveryError,
    Mail,
    PermanentFailure,
    TemporaryFailure,
)
from identity.mail.ses import SesSender, ses_client

PATIENCE = 20.0  # seconds until a stalled answer gives up
REGION = "eu-central-1"
OUTBOX_ID = "0b7b6c53-0e0c-4b3e-9d9f-6a6f3b1f2c58"

Answer = Callable[[BaseHTTPRequestHandler], None]


def mail() -> Mail:
    message = EmailMessage()
    message["From"] = Address("", "identity", "example.com")
    message["To"] = "ann@example.com"
    message["Subject"] = "Hello"
    message.set_content("https://example.com/?token=abc")
    return Mail(OUTBOX_ID, "ann@example.com", message)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


class Front:
    """An HTTP server that keeps the requests and answers them as it is told."""

    def __init__(self) -> None:
        self.requests: list[dict[str, object]] = []
        self.answer: Answer = accept
        self.released = threading.Event()


def accept(handler: BaseHTTPRequestHandler) -> None:
    reply(handler, 200, {"MessageId": "1"})


def reply(
    handler: BaseHTTPRequestHandler, status: int, body: dict[str, str], kind: str = ""
) -> None:
    payload = json.dumps(body).encode()
    handler.send_response(status)
    if kind:
        handler.send_header("x-amzn-ErrorType", kind)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(payload)))
    handler.end_headers()
    handler.wfile.write(payload)


@contextmanager
def serving(front: Front) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            front.requests.append(json.loads(self.rfile.read(length)))
            front.answer(self)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        front.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    made = Front()
    with serving(made) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield made


def test_a_mail_is_handed_over_whole_with_its_tag_and_configuration_set(front: Front) -> None:
    SesSender(ses_client(REGION), "transactional").send(mail())
    (request,) = front.requests
    assert request["Destination"] == {"ToAddresses": ["ann@example.com"]}
    assert request["EmailTags"] == [{"Name": "outbox_id", "Value": OUTBOX_ID}]
    assert request["ConfigurationSetName"] == "transactional"
    assert "Raw" in request["Content"]  # type: ignore[operator]


def test_without_a_configuration_set_none_is_named(front: Front) -> None:
    SesSender(ses_client(REGION)).send(mail())
    assert "ConfigurationSetName" not in front.requests[0]


def error(status: int, code: str, text: str = "for ann@example.com") -> Answer:
    return lambda handler: reply(handler, status, {"message": text}, code)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answer", "failure", "reason"),
    [
        (error(429, "TooManyRequestsException"), TemporaryFailure, "TooManyRequestsException"),
        (error(400, "ThrottlingException"), TemporaryFailure, "ThrottlingException"),
        (error(500, "InternalFailure"), TemporaryFailure, "InternalFailure"),
        (error(503, "ServiceUnavailable"), TemporaryFailure, "ServiceUnavailable"),
        (error(400, "SomethingNew"), TemporaryFailure, "SomethingNew"),
        (hang_up, TemporaryFailure, "ConnectionClosedError"),
        (error(400, "MessageRejected"), PermanentFailure, "MessageRejected"),
        (error(400, "BadRequestException"), PermanentFailure, "BadRequestException"),
        (error(400, "AccountSuspendedException"), AccountFailure, "AccountSuspendedException"),
        (error(400, "SendingPausedException"), AccountFailure, "SendingPausedException"),
        (
            error(400, "MailFromDomainNotVerifiedException"),
            AccountFailure,
            "MailFromDomainNotVerifiedException",
        ),
        (
            error(400, "MessageRejected", "Email address is not verified: ann@example.com"),
            AccountFailure,
            "MessageRejected",
        ),
        (error(400, "LimitExceededException"), AccountFailure, "LimitExceededException"),
        (
            error(429, "TooManyRequestsException", "Daily message quota exceeded"),
            AccountFailure,
            "TooManyRequestsException",
        ),
        (error(404, "NotFoundException"), AccountFailure, "NotFoundException"),
        (error(403, "ExpiredTokenException"), AccountFailure, "ExpiredTokenException"),
        (error(403, "InvalidSignatureException"), AccountFailure, "InvalidSignatureException"),
    ],
)
def test_each_error_ends_in_its_class_after_one_attempt_without_its_text(
    front: Front, answer: Answer, failure: type[DeliveryError], reason: str
) -> None:
    front.answer = answer
    with pytest.raises(failure) as caught:
        SesSender(ses_client(REGION)).send(mail())
    assert str(caught.value) == f"ses {reason}"
    assert len(front.requests) == 1


def test_an_answer_that_does_not_come_is_a_temporary_failure(front: Front) -> None:

    def stall(_handler: BaseHTTPRequestHandler) -> None:
        front.released.wait(PATIENCE)

    front.answer = stall
    with pytest.raises(TemporaryFailure, match=r"^ses ReadTimeoutError$"):
        SesSender(ses_client(REGION, read_timeout=0.3)).send(mail())
    assert len(front.requests) == 1


def test_no_credentials_is_a_fault_of_the_account(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccountFailure, match="NoCredentialsError"):
        SesSender(ses_client(REGION)).send(mail())
    assert front.requests == []


def test_a_server_that_is_down_is_a_temporary_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Front()) as url:
        pass
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(TemporaryFailure, match="EndpointConnectionError"):
        SesSender(ses_client(REGION)).send(mail())


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    yield f"http://{host}:{port}"
    server.stop()


def test_motos_ses_takes_the_mail_of_a_verified_sender_and_no_other(moto: str) -> None:
    sender = SesSender(ses_client(REGION))
    with pytest.raises(DeliveryError, match="MessageRejected"):
        sender.send(mail())
    boto3.client("sesv2", region_name=REGION).create_email_identity(
        EmailIdentity="identity@example.com"
    )
    sender.send(mail())
    (sent,) = ses_backends[DEFAULT_ACCOUNT_ID][REGION].sent_messages
    message = message_from_bytes(sent.raw_data.encode(), policy=default)
    assert message["To"] == "ann@example.com"
    assert "token=abc" in message.get_content()
