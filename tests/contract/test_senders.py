"""SMTP against a real server: what is accepted, refused, protected."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.headerregistry import Address
from email.message import EmailMessage

import pytest

from identity.mail.sender import AccountFailure, Mail, PermanentFailure, TemporaryFailure
from identity.mail.smtp import SmtpSender, SmtpServer, SmtpTls
from tests.mailbox import DROP, PATIENCE, Mailbox

FROM = "identity@example.com"


def mail(to: str = "ann@example.com") -> Mail:
    message = EmailMessage()
    message["From"] = Address("", "identity", "example.com")
    message["To"] = to
    message["Subject"] = "Hello"
    message.set_content("Hello.")
    return Mail("7", to, message)


@pytest.fixture
def plain() -> Iterator[Mailbox]:
    with Mailbox() as opened:
        yield opened


def sender(
    mailbox: Mailbox,
    tls: SmtpTls = SmtpTls.NONE,
    context: ssl.SSLContext | None = None,
    login: tuple[str, str] | tuple[None, None] = (None, None),
) -> SmtpSender:
    server = SmtpServer("localhost", mailbox.port, tls, *login)
    return SmtpSender(server, FROM, context or ssl.create_default_context())


def test_several_mails_go_over_one_connection(plain: Mailbox) -> None:
    smtp = sender(plain)
    for number in range(3):
        smtp.send(mail(f"u{number}@example.com"))
    smtp.close()
    assert [plain.next()["To"] for _ in range(3)] == [f"u{n}@example.com" for n in range(3)]
    assert plain.connections == 1


def test_a_closed_sender_connects_anew(plain: Mailbox) -> None:
    smtp = sender(plain)
    for _ in range(2):
        smtp.send(mail())
        smtp.close()
    assert plain.connections == 2


@pytest.mark.parametrize(
    ("command", "answer", "failure", "reason"),
    [
        ("RCPT", "550 5.1.1 ann@example.com unknown", PermanentFailure, "smtp 550 to RCPT"),
        ("RCPT", "451 try ann@example.com later", TemporaryFailure, "smtp 451 to RCPT"),
        ("DATA", "554 spam from ann@example.com", PermanentFailure, "smtp 554 to DATA"),
        ("DATA", "452 full", TemporaryFailure, "smtp 452 to DATA"),
        ("MAIL", "421 closing", TemporaryFailure, "smtp SMTPSenderRefused 421"),
        ("MAIL", "553 not yours", AccountFailure, "smtp SMTPSenderRefused 553"),
    ],
)
def test_a_refusal_is_told_by_its_code_without_the_servers_text(
    plain: Mailbox, command: str, answer: str, failure: type[Exception], reason: str
) -> None:
    plain.answers[command] = [answer]
    smtp = sender(plain)
    with pytest.raises(failure) as caught:
        smtp.send(mail())
    assert str(caught.value) == reason
    smtp.send(mail())  # the next one is not harmed
    smtp.close()
    plain.next()
    assert plain.is_empty()


def test_a_server_that_is_down_is_a_temporary_failure() -> None:
    with Mailbox() as gone:
        pass
    with pytest.raises(TemporaryFailure, match=r"^smtp ConnectionRefusedError$"):
        sender(gone).send(mail())


def test_a_connection_lost_after_the_message_is_a_temporary_failure(plain: Mailbox) -> None:
    plain.answers["DATA"] = [DROP]
    smtp = sender(plain)
    with pytest.raises(
        TemporaryFailure, match=r"^smtp (SMTPServerDisconnected|ConnectionResetError)$"
    ):
        smtp.send(mail())
    smtp.send(mail())
    smtp.close()


def test_a_connection_that_was_lost_meanwhile_costs_one_attempt(plain: Mailbox) -> None:
    smtp = sender(plain)
    smtp.send(mail())
    plain.drop_connections()
    with pytest.raises(TemporaryFailure):
        smtp.send(mail())
    smtp.send(mail())
    smtp.close()


@pytest.mark.parametrize("tls", [SmtpTls.STARTTLS, SmtpTls.TLS])
def test_a_mail_goes_over_tls_to_a_server_that_is_trusted(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext, tls: SmtpTls
) -> None:
    with Mailbox(tls=server_tls, tls_from_start=tls is SmtpTls.TLS) as mailbox:
        smtp = sender(mailbox, tls, trusting)
        smtp.send(mail())
        smtp.close()
        assert mailbox.next()["To"] == "ann@example.com"
        assert mailbox.was_protected


@pytest.mark.parametrize("tls", [SmtpTls.STARTTLS, SmtpTls.TLS])
def test_a_server_with_an_unknown_certificate_gets_no_mail(
    server_tls: ssl.SSLContext, tls: SmtpTls
) -> None:
    with Mailbox(tls=server_tls, tls_from_start=tls is SmtpTls.TLS) as mailbox:
        with pytest.raises(AccountFailure, match="SSLCertVerificationError"):
            sender(mailbox, tls).send(mail())
        assert mailbox.is_empty()


def test_a_server_whose_certificate_has_another_name_gets_no_mail(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with Mailbox(tls=server_tls) as mailbox:
        smtp = SmtpSender(SmtpServer("127.0.0.1", mailbox.port, SmtpTls.STARTTLS), FROM, trusting)
        with pytest.raises(AccountFailure, match="SSLCertVerificationError"):
            smtp.send(mail())
        assert mailbox.is_empty()


def test_a_server_that_does_not_offer_starttls_gets_no_mail(plain: Mailbox) -> None:
    with pytest.raises(AccountFailure, match="SMTPNotSupportedError"):
        sender(plain, SmtpTls.STARTTLS).send(mail())
    assert plain.is_empty()


@pytest.mark.parametrize(("password", "accepted"), [("right", True), ("wrong", False)])
def test_the_login_is_used(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext, password: str, accepted: bool
) -> None:
    with Mailbox(tls=server_tls, login=("identity", "right")) as mailbox:
        smtp = sender(mailbox, SmtpTls.STARTTLS, trusting, ("identity", password))
        if accepted:
            smtp.send(mail())
            smtp.close()
            assert mailbox.next()["To"] == "ann@example.com"
        else:
            with pytest.raises(AccountFailure, match="SMTPAuthenticationError 535"):
                smtp.send(mail())
            assert mailbox.is_empty()


@contextmanager
def hostile(speak: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that says what it likes to one client; gives its port."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # until the client goes away
            speak(connection)

    with socket.create_server(("localhost", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(PATIENCE)
        assert not thread.is_alive()


def endless_lines(connection: socket.socket) -> None:
    connection.sendall(b"220 hello\r\n")
    while True:
        connection.sendall(b"250-" + b"x" * 1000 + b"\r\n")


def silence(connection: socket.socket) -> None:
    connection.sendall(b"220 hello\r\n")
    while connection.recv(1024):
        pass


@pytest.mark.parametrize(
    ("speak", "send_timeout"),
    # Only the bound on lines can end the first within the test's patience.
    [(endless_lines, 10 * PATIENCE), (silence, 0.5)],
)
def test_a_server_that_never_comes_to_an_end_is_cut_off(
    speak: Callable[[socket.socket], None], send_timeout: float
) -> None:
    with hostile(speak) as port:
        smtp = SmtpSender(
            SmtpServer("localhost", port, SmtpTls.NONE),
            FROM,
            ssl.create_default_context(),
            send_timeout,
        )
        with pytest.raises(TemporaryFailure, match=r"^smtp SMTPServerDisconnected$"):
            smtp.send(mail())


def test_a_reply_code_that_smtp_does_not_know_is_a_temporary_failure(plain: Mailbox) -> None:
    plain.answers["RCPT"] = ["999 what"]
    smtp = sender(plain)
    with pytest.raises(TemporaryFailure, match=r"^smtp 999 to RCPT$"):
        smtp.send(mail())
    smtp.close()
