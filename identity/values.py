"""The values that settings take, read from text.

Each reader raises a ValueError that says what the text must be, and never quotes it: it may be a
secret.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from email.headerregistry import Address
from email.utils import getaddresses
from html import escape
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

MINIMUM_KEY_LENGTH: Final = 32  # characters: 128 bits even where every one is a hex digit
# A link that outlived the hold on its registration would prove an address that others may take.
MAXIMUM_VERIFICATION_TTL: Final = timedelta(hours=72)
# SMTP carries lines of 998 octets (RFC 5322, 2.1.1), and the link stands on one.
MAXIMUM_URL: Final = 900
# A call costs time in proportion to the calls in its window: 0.1 ms at this many.
MAXIMUM_CALLS: Final = 100_000
# Each address in a call's header is looked up once for every length of prefix among them.
MAXIMUM_PROXIES: Final = 100
DEFAULT_VALKEY_PORT: Final = 6379

_NETWORK: Final = re.compile(r"[0-9A-Fa-f:.]+(/(0|[1-9][0-9]{0,2}))?")
_RPC: Final = re.compile(r"[A-Z][A-Za-z]*", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Endpoint(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it. A name other than localhost may be anywhere."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ValkeyServer:
    """Where rate limits are counted, and as whom."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    has_tls: bool = False


class Rate(NamedTuple):
    """So many calls in any such period."""

    calls: int
    period: timedelta


def endpoint(value: Any) -> Endpoint:  # noqa: ANN401 - what the environment holds
    host, colon, port = str(value).rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (colon and host and re.fullmatch(r"\d{1,5}", port, re.ASCII) and int(port) < 1 << 16):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
    return Endpoint(host, int(port))


def database_url(value: Any) -> URL:  # noqa: ANN401
    try:
        url = make_url(value if isinstance(value, URL) else str(value))
        if url.drivername == "postgresql+psycopg":
            url.get_dialect()().create_connect_args(url)  # looks at several hosts
    except (ArgumentError, ValueError):  # a ValueError quotes what it took for the port
        raise ValueError(
            "must be a SQLAlchemy URL, its password percent-encoded, "
            "several hosts as /name?host=A:5432&host=B:5432"
        ) from None
    if url.drivername in {"sqlite", "sqlite+pysqlite"}:
        if url.database in {None, "", ":memory:"}:
            raise ValueError(
                "must name a file: a database in memory is another for each connection"
            )
        if url.query:
            raise ValueError("takes no options with SQLite")
    elif url.drivername != "postgresql+psycopg":
        raise ValueError("must begin with sqlite:/// or postgresql+psycopg://")
    return url


def secret_keys(value: Any) -> tuple[str, ...]:  # noqa: ANN401
    """The keys of a comma-separated list. Raises ValueError."""
    keys = tuple(key.strip() for key in str(value).split(","))
    if any(len(key) < MINIMUM_KEY_LENGTH for key in keys):
        raise ValueError(
            f"must be keys of at least {MINIMUM_KEY_LENGTH} characters each, separated by commas"
        )
    return keys


def duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII)
    if not found:
        raise ValueError("must be a duration such as 90s, 30m, 24h or 2d")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def verification_ttl(value: Any) -> timedelta:  # noqa: ANN401
    ttl = duration(str(value))
    if not timedelta(minutes=1) <= ttl <= MAXIMUM_VERIFICATION_TTL:
        raise ValueError("must lie between 1m and 72h")
    return ttl


def rate(value: Any) -> Rate:  # noqa: ANN401
    calls, slash, period = str(value).partition("/")
    if not (slash and re.fullmatch(r"\d{1,7}", calls, re.ASCII)):
        raise ValueError("must be CALLS/PERIOD, such as 100/60s")
    rate = Rate(int(calls), duration(period))
    if not 1 <= rate.calls <= MAXIMUM_CALLS:
        raise ValueError(f"must allow 1 to {MAXIMUM_CALLS} calls")
    if not timedelta(seconds=1) <= rate.period <= timedelta(days=1):
        raise ValueError("must have a period between 1s and 1d")
    return rate


def rates_by_rpc(value: Any) -> Mapping[str, Rate]:  # noqa: ANN401
    """Whether there are RPCs of those names is not known here."""
    rates = {}
    for entry in str(value).split(","):
        rpc, _, text = entry.strip().partition("=")
        if not _RPC.fullmatch(rpc) or rpc in rates:
            raise ValueError("must be RPC=CALLS/PERIOD, such as Register=10/60s, each RPC once")
        rates[rpc] = rate(text)
    return rates


def rate_limit_store(value: Any) -> str:  # noqa: ANN401
    if value != "memory://":
        valkey_server(str(value))
    return str(value)


def valkey_server(url: str) -> ValkeyServer:
    """The server of valkey://[USER:PASSWORD@]HOST[:PORT][/DATABASE]; valkeys:// is over TLS."""
    wrong = ValueError(
        "must be memory:// or valkey://[USER:PASSWORD@]HOST[:PORT][/DATABASE], valkeys:// for TLS, "
        "the password percent-encoded"
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # it quotes what it took for the port
        raise wrong from None
    # Of options none is taken: among the client's own is one that switches verification off.
    if parts.scheme not in {"valkey", "valkeys"} or not host or port == 0 or {"?", "#"} & {*url}:
        raise wrong
    # urlsplit drops line ends and tabs without a word.
    if not url.isascii() or not url.isprintable() or " " in url:
        raise wrong
    database = re.fullmatch(r"(?:/(\d{0,5}))?", parts.path)
    if database is None or ("@" in parts.netloc and not parts.password):
        raise wrong
    return ValkeyServer(
        host,
        port or DEFAULT_VALKEY_PORT,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=int(database[1] or 0),
        has_tls=parts.scheme == "valkeys",
    )


def path(value: Any) -> Path:  # noqa: ANN401
    if not str(value):
        raise ValueError("must be the path of a file")
    return Path(str(value))


def trusted_proxies(value: Any) -> tuple[IPv4Network | IPv6Network, ...]:  # noqa: ANN401
    entries = str(value).split(",")
    if len(entries) > MAXIMUM_PROXIES:
        raise ValueError(f"must be at most {MAXIMUM_PROXIES} addresses or CIDRs")
    return tuple(_network(entry.strip()) for entry in entries)


def _network(text: str) -> IPv4Network | IPv6Network:
    # ip_network alone would take masks such as 10.0.0.0/0.255.255.255 and lengths such as /08.
    if not _NETWORK.fullmatch(text):
        raise ValueError("must be addresses or CIDRs such as 10.0.0.0/8, separated by commas")
    try:
        return ip_network(text)
    except ValueError:  # it quotes the value
        raise ValueError(
            "must be IPv4 or IPv6 addresses or CIDRs, with no bits set behind the prefix"
        ) from None


def email_sender(value: Any) -> str:  # noqa: ANN401
    if value not in {"console", "smtp", "ses"}:
        raise ValueError("must be console, smtp or ses")
    return str(value)


def email_from(value: Any) -> Address:  # noqa: ANN401
    wrong = ValueError("must be an address such as identity@example.com or Name <address>")
    text = str(value)
    # An encoded word would be decoded into the header, line ends and all.
    if not text.isascii() or not text.isprintable() or "=?" in text:
        raise wrong
    try:
        ((name, addr_spec),) = getaddresses([text])
        address = Address(display_name=name, addr_spec=addr_spec)
    except Exception:  # noqa: BLE001 - the parser raises IndexError and others besides its own
        raise wrong from None
    if not address.username or not address.domain:
        raise wrong
    return address


def verification_url(value: Any) -> str:  # noqa: ANN401
    url = str(value)
    if url.count("{token}") != 1:
        raise ValueError("must contain {token} once")
    if not url.isascii() or not url.isprintable() or " " in url or len(escape(url)) > MAXIMUM_URL:
        raise ValueError(f"must be at most {MAXIMUM_URL} printable ASCII characters in HTML")
    try:
        parts = urlsplit(url)
    except ValueError:  # it quotes what it took for the host
        raise ValueError("must be a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError("must begin with http:// or https://")
    return url
