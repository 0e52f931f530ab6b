"""Whether the sender of mails would take one."""

import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from identity.config import Settings
from identity.doctor.finding import Finding, failed, passed, warned
from identity.mail.sender import DeliveryError
from identity.mail.smtp import SmtpSender, SmtpServer, SmtpTls
from identity.values import Endpoint

CHECK_TIMEOUT: Final = 6.0  # seconds, for all that the SMTP server is asked

# By the error that the sender's reason names.
_MENDS: Final = {
    "SMTPAuthenticationError": "look at IDENTITY_SMTP_USERNAME and IDENTITY_SMTP_PASSWORD",
    "SMTPNotSupportedError": "it offers no STARTTLS, or no login: look at IDENTITY_SMTP_TLS",
    "SSLCertVerificationError": "name a host in its certificate, by an authority trusted here",
    "SSLError": "it speaks no TLS at once: look at IDENTITY_SMTP_TLS and IDENTITY_SMTP_PORT",
}
_UNREACHABLE: Final = "look at IDENTITY_SMTP_HOST, IDENTITY_SMTP_PORT, and for a firewall"


def mail_findings(settings: Settings) -> Iterator[Finding]:
    if settings.email_sender == "console":
        yield _console(settings)
        return
    if settings.email_sender == "smtp":
        yield _smtp(settings)
    else:
        from identity.doctor.ses import ses_findings  # noqa: PLC0415 - boto3 takes 0.3 s

        yield from ses_findings(settings)
    yield _from(settings)
    yield _link(settings)


def _console(settings: Settings) -> Finding:
    if settings.is_embedded:
        return passed("mail", "to the console, for trying out")
    return warned("mail", "to the console: nobody gets any", "set IDENTITY_EMAIL_SENDER")


def _smtp(settings: Settings) -> Finding:
    host, port, tls = settings.smtp_host, settings.smtp_port, SmtpTls(settings.smtp_tls)
    password = settings.smtp_password
    server = SmtpServer(
        host,
        port,
        tls,
        settings.smtp_username,
        password.get_secret_value() if password else None,
    )
    sender = SmtpSender(
        server, settings.email_from.addr_spec, ssl.create_default_context(), CHECK_TIMEOUT
    )
    where = f"SMTP, {host}:{port}"
    try:
        sender.check()
    except DeliveryError as error:
        kind = error.reason.split()[1]
        return failed("mail", f"{where}: {error.reason}", _MENDS.get(kind, _UNREACHABLE))
    login = "logged in" if settings.smtp_username else "no login"
    if tls is SmtpTls.NONE and not _is_here(host):
        found = f"{where}, {login}: mails with their links, and the login, go in plaintext"
        return warned("mail", found, "set IDENTITY_SMTP_TLS to starttls or tls")
    return passed("mail", f"{where}, {tls.value}, {login}")


def _from(settings: Settings) -> Finding:
    address = settings.email_from
    if address.domain == "localhost":
        found = f"mails come from {address.addr_spec}"
        return warned("mail.from", found, "set IDENTITY_EMAIL_FROM to an address of yours")
    return passed("mail.from", address.addr_spec)


def _link(settings: Settings) -> Finding:
    parts = urlsplit(settings.verification_url)
    host = parts.hostname or ""
    told = f"links lead to {parts.scheme}://{host}"
    if _is_here(host):
        found = f"{told}: the reader's own machine"
        return warned("mail.link", found, "set IDENTITY_VERIFICATION_URL")
    if parts.scheme != "https":
        found = f"{told}: tokens go in plaintext"
        return warned("mail.link", found, "let IDENTITY_VERIFICATION_URL begin with https://")
    return passed("mail.link", told)


def _is_here(host: str) -> bool:
    return Endpoint(host, 0).is_loopback
