"""The files of TLS, and that of the callers.

The standard library shows the dates of a certificate only to a client that has verified it: so
the server's own certificate is looked at by a handshake in memory, as its clients will.
"""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from identity import callers, policy
from identity.config import ConfigurationError, Settings
from identity.doctor.files import secret_file
from identity.doctor.finding import Finding, failed, foreign, passed, warned

RENEWAL_TIME: Final = timedelta(days=21)  # those that renew by themselves do it a month before
MAXIMUM_FILE: Final = 1 << 20  # bytes; a bundle of all public authorities has a quarter of that

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL: dates are judged here, by a clock that is given.
_NO_CHECK_TIME: Final = 0x200000
_FLIGHTS: Final = 4  # turns of each side; TLS 1.3 takes two
_NAMES_SHOWN: Final = 3
_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)

# What `getpeercert` and `get_ca_certs` give.
Certificate = Mapping[str, Any]


def tls_findings(settings: Settings, now: Callable[[], datetime]) -> Iterator[Finding]:
    if settings.tls_cert is not None and settings.tls_key is not None:
        yield _certificate(settings.tls_cert, settings.tls_key, now())
        yield secret_file("tls.key", settings.tls_key)
    if settings.tls_client_ca is not None:
        yield _client_ca(settings.tls_client_ca, now())
    if settings.callers_file is not None:
        yield _callers(settings.callers_file)


def _certificate(cert: Path, key: Path, now: datetime) -> Finding:
    name = "tls.certificate"
    try:
        chain = _CERTIFICATE.findall(_read(cert))
        key_text = _read(key)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        path = getattr(error, "filename", None) or f"{cert} or {key}"
        return failed(name, f"{path}: {why}", "make it readable for the service's user, in PEM")
    if not chain:
        return failed(name, f"{cert}: no certificate in PEM", "put the certificate there in PEM")
    if "ENCRYPTED" in key_text:
        return failed(name, f"{key}: encrypted", "store the key without a passphrase, mode 0600")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        return failed(name, *_unloadable(cert, key, error))
    try:
        leaf = _as_a_client_sees_it(server, chain)
    except ssl.SSLError as error:
        why = foreign(getattr(error, "verify_message", "") or error.reason or "no handshake")
        return failed(name, f"{cert}: {why}", "have it issued for TLS servers")
    names = [value for kind, value in leaf.get("subjectAltName", ()) if kind in {"DNS", "URI"}]
    told = foreign(", ".join(names[:_NAMES_SHOWN])) or "no name"
    # The shortest-lived one ends the chain's life.
    authorities = [each for pem in chain[1:] for each in _authorities(pem)]
    return _dated(name, f"{cert} for {told}", [leaf, *authorities], now)


def _unloadable(cert: Path, key: Path, error: ssl.SSLError) -> tuple[str, str]:
    if error.reason in {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED", "KEY_TYPE_MISMATCH"}:
        return (
            f"{key} does not belong to the first certificate in {cert}",
            "put the server's own certificate first, and name its key",
        )
    why = f" ({foreign(error.reason)})" if error.reason else ""
    return (
        f"{cert}, {key}: cannot be used{why}",
        "store both in PEM, with a key of today's strength",
    )


def _as_a_client_sees_it(server: ssl.SSLContext, chain: list[str]) -> Certificate:
    """The server's certificate. Raises ssl.SSLError."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cadata="\n".join(chain))
    # Itself is the one that it is verified by: who else is trusted, the clients know.
    client.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(_FLIGHTS):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].getpeercert() or {}


def _client_ca(path: Path, now: datetime) -> Finding:
    name = "tls.client_ca"
    mend = "put the certificates of the authorities there in PEM"
    try:
        found = [each for pem in _CERTIFICATE.findall(_read(path)) for each in _authorities(pem)]
    except ssl.SSLError:
        return failed(name, f"{path}: holds a damaged certificate", mend)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        return failed(name, f"{path}: {why}", mend)
    if not found:
        return failed(name, f"{path}: no certificate of an authority in PEM", mend)
    if any(_end(each) <= now for each in found) and any(_end(each) > now for each in found):
        return warned(name, f"{path}: one of {len(found)} has expired", "take it out")
    return _dated(name, f"{path}, certificates: {len(found)}", found, now)


def _authorities(pem: str) -> list[Certificate]:
    """The certificate if it is an authority's. Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    return [each for each in context.get_ca_certs() if isinstance(each, dict)]


def _dated(name: str, told: str, certificates: list[Certificate], now: datetime) -> Finding:
    start = max(_moment(each["notBefore"]) for each in certificates)
    end = min(map(_end, certificates))
    mend = "renew it"
    if end <= now:
        return failed(name, f"{told}: expired on {end:%Y-%m-%d}", mend)
    if start > now:
        return failed(name, f"{told}: not valid before {start:%Y-%m-%d %H:%M} UTC", mend)
    found = f"{told}, until {end:%Y-%m-%d} ({(end - now).days} days)"
    return warned(name, found, mend) if end - now < RENEWAL_TIME else passed(name, found)


def _end(certificate: Certificate) -> datetime:
    return _moment(certificate["notAfter"])


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def _read(path: Path) -> str:
    """Raises OSError, or ValueError where it is no text."""
    with path.open("rb") as file:
        return file.read(MAXIMUM_FILE).decode()


def _callers(path: Path) -> Finding:
    try:
        listed = callers.load(path, policy.methods_of(policy.SERVICES))
    except ConfigurationError as error:
        why = str(error).removeprefix("IDENTITY_CALLERS_FILE: ")
        return failed("callers", f"{path}: {why}", "mend it: the README shows its form")
    return passed("callers", f"{path}, callers: {len(listed)}")
