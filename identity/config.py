"""Settings: the environment, read once at the start, checked and frozen.

Every mistake is told in one line that names the variable and never shows its value, which may be
a secret.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from email.headerregistry import Address
from email.utils import getaddresses
from html import escape
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

PREFIX: Final = "IDENTITY_"
EMBEDDED_DATABASE: Final = "sqlite:///var/identity.db"

MINIMUM_KEY_LENGTH: Final = 32  # characters: 128 bits even where every one is a hex digit
# A link that outlived the hold on its registration would prove an address that others may take.
MAXIMUM_VERIFICATION_TTL: Final = timedelta(hours=72)
# SMTP carries lines of 998 octets (RFC 5322, 2.1.1), and the link stands on one.
MAXIMUM_URL: Final = 900
# A call costs time in proportion to the calls in its window: 0.1 ms at this many.
MAXIMUM_CALLS: Final = 100_000
# Each address in a call's header is looked up once for every length of prefix among them.
MAXIMUM_PROXIES: Final = 100

# Kubernetes puts these into every container for a service named "identity".
_INJECTED: Final = re.compile(r"IDENTITY_(SERVICE_.*|PORT|PORT_.*)")
_FROM_FILES: Final = ("database_url", "secret_keys", "smtp_password")
# Part of the public list of settings, but their parts do not exist yet: refused, not ignored.
_NOT_YET: Final = frozenset(
    {
        "IDENTITY_TLS_CERT",
        "IDENTITY_TLS_KEY",
        "IDENTITY_TLS_CLIENT_CA",
    }
)
_NETWORK: Final = re.compile(r"[0-9A-Fa-f:.]+(/(0|[1-9][0-9]{0,2}))?")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class ConfigurationError(Exception):
    """A setting is unknown, missing or unusable. The text is one line for the operator."""


class Endpoint(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Rate(NamedTuple):
    """So many calls in any such period."""

    calls: int
    period: timedelta


def _endpoint(value: Any) -> Endpoint:  # noqa: ANN401 - what the environment holds
    host, colon, port = str(value).rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (colon and host and re.fullmatch(r"\d{1,5}", port, re.ASCII) and int(port) < 1 << 16):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
    return Endpoint(host, int(port))


def _database_url(value: Any) -> URL:  # noqa: ANN401
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


def parse_secret_keys(value: Any) -> tuple[str, ...]:  # noqa: ANN401
    """The keys of a comma-separated list. Raises ValueError."""
    keys = tuple(key.strip() for key in str(value).split(","))
    if any(len(key) < MINIMUM_KEY_LENGTH for key in keys):
        raise ValueError(
            f"must be keys of at least {MINIMUM_KEY_LENGTH} characters each, separated by commas"
        )
    return keys


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII)
    if not found:
        raise ValueError("must be a duration such as 90s, 30m, 24h or 2d")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def _verification_ttl(value: Any) -> timedelta:  # noqa: ANN401
    ttl = _duration(str(value))
    if not timedelta(minutes=1) <= ttl <= MAXIMUM_VERIFICATION_TTL:
        raise ValueError("must lie between 1m and 72h")
    return ttl


def _rate(value: Any) -> Rate:  # noqa: ANN401
    calls, slash, period = str(value).partition("/")
    if not (slash and re.fullmatch(r"\d{1,7}", calls, re.ASCII)):
        raise ValueError("must be CALLS/PERIOD, such as 100/60s")
    rate = Rate(int(calls), _duration(period))
    if not 1 <= rate.calls <= MAXIMUM_CALLS:
        raise ValueError(f"must allow 1 to {MAXIMUM_CALLS} calls")
    if not timedelta(seconds=1) <= rate.period <= timedelta(days=1):
        raise ValueError("must have a period between 1s and 1d")
    return rate


def _rate_limit_store(value: Any) -> str:  # noqa: ANN401
    if str(value).startswith(("valkey://", "valkeys://")):
        raise ValueError("valkey is not supported by this release; leave it at memory://")
    if value != "memory://":
        raise ValueError("must be memory://")
    return str(value)


def _trusted_proxies(value: Any) -> tuple[IPv4Network | IPv6Network, ...]:  # noqa: ANN401
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


def _email_sender(value: Any) -> str:  # noqa: ANN401
    if value not in {"console", "smtp", "ses"}:
        raise ValueError("must be console, smtp or ses")
    return str(value)


def _email_from(value: Any) -> Address:  # noqa: ANN401
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


def _verification_url(value: Any) -> str:  # noqa: ANN401
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


class Settings(BaseSettings):
    """All settings, with the defaults of the embedded case."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        hide_input_in_errors=True,
        extra="forbid",
        validate_default=False,  # they are of their final types already
    )

    listen: Annotated[Endpoint, NoDecode, PlainValidator(_endpoint)] = Endpoint("127.0.0.1", 50051)
    database_url: Annotated[URL, NoDecode, PlainValidator(_database_url)] = Field(
        make_url(EMBEDDED_DATABASE), repr=False
    )
    secret_keys: Annotated[tuple[str, ...], NoDecode, PlainValidator(parse_secret_keys)] | None = (
        Field(None, repr=False)
    )
    email_sender: Annotated[str, PlainValidator(_email_sender)] = "console"
    email_from: Annotated[Address, NoDecode, PlainValidator(_email_from)] = Address(
        username="identity", domain="localhost"
    )
    verification_url: Annotated[str, PlainValidator(_verification_url)] = (
        "http://localhost:3000/verify-email?token={token}"
    )
    verification_ttl: Annotated[timedelta, NoDecode, PlainValidator(_verification_ttl)] = timedelta(
        hours=24
    )
    smtp_host: str = Field("localhost", min_length=1)
    smtp_port: int = Field(25, ge=1, le=65535)
    smtp_username: str | None = Field(None, min_length=1)
    smtp_password: SecretStr | None = Field(None, min_length=1)
    smtp_tls: Literal["none", "starttls", "tls"] = "starttls"
    ses_region: str | None = Field(None, pattern=r"^[a-z0-9-]{1,32}$")
    ses_configuration_set: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    rate_limit: Annotated[Rate, NoDecode, PlainValidator(_rate)] = Rate(100, timedelta(seconds=60))
    rate_limit_store: Annotated[str, PlainValidator(_rate_limit_store)] = "memory://"
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, PlainValidator(_trusted_proxies)
    ] = ()
    bcrypt_cost: int = Field(12, ge=4, le=16)
    reflection: bool = True
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _smtp_login_is_whole(self) -> Self:
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise PydanticCustomError(
                "smtp_login", "IDENTITY_SMTP_USERNAME and IDENTITY_SMTP_PASSWORD go together"
            )
        return self

    @property
    def is_embedded(self) -> bool:
        """Whether the database is the default one, which looks after itself."""
        return self.database_url == make_url(EMBEDDED_DATABASE)


def load() -> Settings:
    """Reads the environment. Raises ConfigurationError."""
    _refuse_unknown(os.environ)
    try:
        return Settings(**_from_files(os.environ))
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)
        raise ConfigurationError("; ".join(map(_told, mistakes))) from None


def _from_files(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that `IDENTITY_X_FILE` names a file for."""
    found = {}
    for field in _FROM_FILES:
        name = f"{PREFIX}{field.upper()}"
        path = environment.get(f"{name}_FILE")
        if path is None:
            continue
        if name in environment:
            raise ConfigurationError(f"{name}_FILE: set together with {name}")
        try:
            found[field] = Path(path).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "not a text file"
            raise ConfigurationError(f"{name}_FILE: cannot be read: {why}") from None
    return found


def _told(mistake: ErrorDetails) -> str:
    text = mistake["msg"].removeprefix("Value error, ")
    return ": ".join([*(f"{PREFIX}{str(name).upper()}" for name in mistake["loc"][:1]), text])


def _is_text(value: str) -> bool:
    """Whether the value was decodable: what is not comes as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    fields = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known = fields | {f"{PREFIX}{name.upper()}_FILE" for name in _FROM_FILES}
    for name in sorted(environment):
        if name in known and not _is_text(environment[name]):
            raise ConfigurationError(f"{name}: is not UTF-8 text")
        # In any case of letters: pydantic would read `identity_listen` too.
        if not name.upper().startswith(PREFIX) or name in known or _INJECTED.fullmatch(name):
            continue
        if name in _NOT_YET:
            raise ConfigurationError(f"{name}: not supported by this release")
        raise ConfigurationError(f"{name}: there is no such setting")
