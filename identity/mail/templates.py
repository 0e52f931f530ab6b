"""Renders mails from the templates beside this module."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address, BaseHeader, HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import format_datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

_SUBJECT = "Please confirm your e-mail address"

# Of all mails, or of all their parts of a kind.
_REPEATED = frozenset(
    {"from", "subject", "mime-version", "content-type", "content-transfer-encoding"}
)


class _Headers(HeaderRegistry):
    """Parses headers, which is what a mail costs most of; those that all mails share only once."""

    def __init__(self) -> None:
        super().__init__()
        self._class_of = lru_cache(maxsize=64)(super().__getitem__)  # which makes it anew each time
        self._parse_once = lru_cache(maxsize=64)(super().__call__)

    def __getitem__(self, name: str) -> type[BaseHeader]:
        return self._class_of(name)

    def __call__(self, name: str, value: Any) -> BaseHeader:  # noqa: ANN401 - as the base
        kind = name.lower()
        return (self._parse_once if kind in _REPEATED else super().__call__)(name, value)


class _Policy(EmailPolicy):
    """Folds headers that all mails share only once."""

    def fold_binary(self, name: str, value: Any) -> bytes:  # noqa: ANN401 - as the base
        return (_fold_once if name.lower() in _REPEATED else _fold)(self, name, value)


def _fold(policy: _Policy, name: str, value: str) -> bytes:
    return EmailPolicy.fold_binary(policy, name, value)


_fold_once = lru_cache(maxsize=64)(_fold)

_POLICY = _Policy(linesep=SMTP.linesep, header_factory=_Headers())


@dataclass(frozen=True)
class VerificationMail:
    """What the mail that asks for a proof of an address says."""

    outbox_id: str
    username: str
    email: str
    token: str
    expires_at: datetime
    written_at: datetime


class Templates:
    """Renders mails in text and HTML, every value escaped in HTML."""

    def __init__(self, sender: Address, verification_url: str) -> None:
        """`verification_url` holds `{token}` where the token goes."""
        self._sender = sender
        self._verification_url = verification_url
        # The same for all mails, and nothing that one could hold: to look for one in each costs as
        # much as to fill it in.
        self._boundary = secrets.token_hex(16)
        self._environment = Environment(
            loader=PackageLoader("identity.mail"),
            autoescape=select_autoescape(),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            auto_reload=False,  # they come with the release
        )

        # Ours use none of Jinja's own, which would be copied for each mail.
        self._environment.globals.clear()

    def verification(self, mail: VerificationMail) -> EmailMessage:
        """The mail with the link that proves the address."""
        values = {
            "subject": _SUBJECT,
            "username": mail.username,
            "link": self._verification_url.replace("{token}", mail.token),
            "expires_at": f"{mail.expires_at:%Y-%m-%d %H:%M} UTC",
        }
        message = EmailMessage(policy=_POLICY)
        message["From"] = str(self._sender)
        message["To"] = Address(addr_spec=mail.email)
        message["Subject"] = _SUBJECT
        message["Date"] = format_datetime(mail.written_at)
        # The same at every attempt: mailboxes that know it show a duplicate once.
        message["Message-ID"] = f"<{mail.outbox_id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation replies
        # 7bit keeps the link on one line; quoted-printable would break it and escape its "=".
        message.set_content(self._render("verification.txt", values), cte="7bit")
        message.make_alternative(boundary=self._boundary)
        message.add_alternative(
            self._render("verification.html", values), subtype="html", cte="7bit"
        )
        return message

    def _render(self, name: str, values: dict[str, str]) -> str:
        return self._environment.get_template(name).render(values)
