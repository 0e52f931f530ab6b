"""Mails: what they say, how they are put together, and when they are tried again."""

import io
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from html import escape
from html.parser import HTMLParser

import pytest

from identity.errors import InvalidFields
from identity.mail.console import ConsoleSender
from identity.mail.deliverer import retry_delay
from identity.mail.sender import Mail
from identity.mail.templates import Templates, VerificationMail
from identity.schemas import Registration

TOKEN = "Tok_en-" + "x" * 57
URL = "https://example.com/verify?lang=en&token={token}"
LINK = f"https://example.com/verify?lang=en&token={TOKEN}"
LONGEST_LINE = 998  # octets, RFC 5322, 2.1.1

MAIL = VerificationMail(
    outbox_id="0b1cfa2e-3b1f-4d29-9b5c-0d4a6f2a7c11",
    username="Alice",
    email="alice@example.org",
    token=TOKEN,
    expires_at=datetime(2026, 1, 2, 12, 0, tzinfo=UTC),
    written_at=datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC),
)


class Page(HTMLParser):
    """What a mail program shows of an HTML part, and where its links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(
    mail: VerificationMail = MAIL,
    sender: Address = Address(addr_spec="identity@example.com"),  # noqa: B008 - never changes
    url: str = URL,
) -> EmailMessage:
    """The mail as its receiver's program reads it from the wire."""
    wire = Templates(sender, url).verification(mail).as_bytes()
    return BytesParser(EmailMessage, policy=SMTP).parsebytes(wire)


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    content: str = body.get_content()
    return content.replace("\r\n", "\n")


# What it says


def test_a_verification_mail_bears_its_headers() -> None:
    message = rendered(sender=Address("Example", addr_spec="identity@example.com"))
    assert message["From"] == "Example <identity@example.com>"
    assert message["To"] == "alice@example.org"
    assert message["Subject"] == "Please confirm your e-mail address"
    assert message["Date"].datetime == MAIL.written_at
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    assert [p.get_content_type() for p in message.iter_parts()] == ["text/plain", "text/html"]
    assert message.defects == []


@pytest.mark.parametrize("kind", ["plain", "html"])
def test_both_parts_greet_the_person_and_say_until_when_the_link_works(kind: str) -> None:
    text = part(rendered(), kind)
    assert "Hello Alice," in text
    assert "2026-01-02 12:00 UTC" in text


def test_the_link_stands_alone_on_one_line_of_the_text() -> None:
    assert LINK in part(rendered(), "plain").split("\n")


def test_the_html_leads_to_the_link_and_shows_it_in_full() -> None:
    page = Page(part(rendered(), "html"))
    assert page.links == [LINK]
    assert LINK in page.text


def test_the_link_is_unbroken_on_the_wire() -> None:
    """Programs that read the raw text, as people do from a log, find it whole."""
    wire = Templates(Address(addr_spec="identity@example.com"), URL).verification(MAIL).as_bytes()
    lines = wire.split(b"\r\n")
    assert LINK.encode() in lines
    assert sum(LINK.replace("&", "&amp;").encode() in line for line in lines) == 2
    assert all(line.isascii() and b"\n" not in line for line in lines)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://example.com/{token}?" + "x" * 872, id="900 characters"),
        pytest.param("https://example.com/{token}?" + "&x=1" * 109, id="all parameters"),
    ],
)
def test_no_line_is_longer_than_smtp_carries_even_with_the_longest_url(url: str) -> None:
    assert len(escape(url)) == 900
    wire = Templates(Address(addr_spec="identity@example.com"), url).verification(MAIL).as_bytes()
    assert max(len(line) for line in wire.split(b"\r\n")) <= LONGEST_LINE


# What cannot get in


@pytest.mark.parametrize(
    "value",
    ["<script>alert(1)</script>", '"><a href="https://evil.example">', "a&lt;b", "{{ 7*7 }}"],
)
def test_values_are_text_in_html_whatever_they_are(value: str) -> None:
    page = Page(part(rendered(replace(MAIL, username=value)), "html"))
    assert page.tags == Page(part(rendered(), "html")).tags
    assert page.links == [LINK]
    assert f"Hello {value}," in page.text


def test_a_url_cannot_leave_its_attribute() -> None:
    url = "https://example.com/'\"><b>{token}"
    page = Page(part(rendered(url=url), "html"))
    assert page.links == [url.replace("{token}", TOKEN)]
    assert page.tags == Page(part(rendered(), "html")).tags


def test_no_username_that_may_register_breaks_a_line_or_a_tag() -> None:
    """Every character alone: those that the rules let through change nothing but the name."""
    allowed = []
    for code in range(0x300):
        try:
            username = Registration.checked(
                username=f"a{chr(code)}b", email="a@example.org", password="Passw0rd!"
            ).username
        except InvalidFields:
            continue
        allowed.append(chr(code))
        assert username.isascii()
        assert username.isprintable()
    assert not set(allowed) & set("\r\n<>&\"'{}%: ")
    name = "".join(allowed)
    message = rendered(replace(MAIL, username=name))
    assert f"Hello {name}," in part(message, "plain").split("\n")
    assert f"Hello {name}," in Page(part(message, "html")).text
    assert message.keys() == rendered().keys()


@pytest.mark.parametrize(
    "email",
    [
        f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.org",
        "!#$%&'*+-/=?^_`{|}~@example.org",
        "a=?utf-8?q?=0d=0abcc?=@example.org",
        "o'brien+tag@xn--bcher-kva.org",
    ],
)
def test_every_address_that_may_register_stands_in_the_header_as_it_is(email: str) -> None:
    assert Registration.checked(username="alice", email=email, password="Passw0rd!").email == email
    message = rendered(replace(MAIL, email=email))
    assert [address.addr_spec for address in message["To"].addresses] == [email]
    assert message.keys() == rendered().keys()


@pytest.mark.parametrize("email", ["a@example.org\r\nBcc: b@example.org", "a@b.org, b@b.org"])
def test_what_is_not_one_address_never_becomes_a_mail(email: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        rendered(replace(MAIL, email=email))


# What stays the same


def test_the_same_mail_has_the_same_message_id_at_every_attempt() -> None:
    first, second = rendered(), rendered()
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Message-ID"] == f"<{MAIL.outbox_id}@example.com>"
    assert first["Date"] == second["Date"]


def test_another_mail_has_another_message_id() -> None:
    other = replace(MAIL, outbox_id="another")
    assert rendered(other)["Message-ID"] != rendered()["Message-ID"]


def test_a_long_domain_leaves_the_message_id_whole() -> None:
    domain = f"{'d' * 60}.{'e' * 60}.org"
    message = rendered(sender=Address("", "identity", domain))
    assert message["Message-ID"] == f"<{MAIL.outbox_id}@{domain}>"


# The console


def test_the_console_shows_the_whole_mail() -> None:
    stream = io.StringIO()
    sender = ConsoleSender(stream)
    message = Templates(Address(addr_spec="identity@example.com"), URL).verification(MAIL)
    sender.send(Mail(MAIL.outbox_id, MAIL.email, message))
    shown = stream.getvalue().replace("\r\n", "\n")
    assert message.as_string().replace("\r\n", "\n") in shown
    assert LINK in shown.split("\n")
    assert "To: alice@example.org" in shown.split("\n")
    sender.send(Mail(MAIL.outbox_id, MAIL.email, message))
    sender.close()
    assert stream.getvalue().count("Message-ID:") == 2
    assert not stream.closed


# Trying again


def longest(low: float, high: float) -> float:
    assert low == 0
    return high


def test_the_longest_wait_doubles_from_five_seconds_to_ten_minutes() -> None:
    waits = [retry_delay(failures, longest).total_seconds() for failures in range(1, 11)]
    assert waits == [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]


@pytest.mark.parametrize("failures", [100, 1_000, 10_000, 10**9])
def test_thousands_of_failures_wait_no_longer(failures: int) -> None:
    assert retry_delay(failures, longest) == timedelta(minutes=10)


@pytest.mark.parametrize("failures", [1, 5, 5_000])
def test_the_wait_is_anything_from_nothing_to_the_longest(failures: int) -> None:
    """Full jitter: of many mails that failed together, few come back together."""
    assert retry_delay(failures, lambda low, _: low) == timedelta(0)
    assert retry_delay(failures, lambda low, high: (low + high) / 2) * 2 == retry_delay(
        failures, longest
    )
    uniform = random.Random(7).uniform
    waits = {retry_delay(failures, uniform) for _ in range(100)}
    assert len(waits) == 100
    assert max(waits) <= retry_delay(failures, longest)
