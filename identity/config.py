"""Settings: the environment, read once at the start, checked and frozen.

Every mistake is told in one line that names the variable and never shows its value, which may be
a secret.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from email.headerregistry import Address
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PlainValidator, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url

from identity import values

PREFIX: Final = "IDENTITY_"
EMBEDDED_DATABASE: Final = "sqlite:///var/identity.db"

MAXIMUM_WORKERS: Final = 64  # one for each core of a large machine; each takes some 100 MB

# Kubernetes puts these into every container for a service named "identity".
_INJECTED: Final = re.compile(r"IDENTITY_(SERVICE_.*|PORT|PORT_.*)")
_FROM_FILES: Final = ("database_url", "secret_keys", "smtp_password", "rate_limit_store")


class ConfigurationError(Exception):
    """A setting is unknown, missing or unusable. The text is one line for the operator."""


class Settings(BaseSettings):
    """All settings, with the defaults of the embedded case."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        hide_input_in_errors=True,
        extra="forbid",
        validate_default=False,  # they are of their final types already
    )

    listen: Annotated[values.Endpoint, NoDecode, PlainValidator(values.endpoint)] = values.Endpoint(
        "127.0.0.1", 50051
    )
    database_url: Annotated[URL, NoDecode, PlainValidator(values.database_url)] = Field(
        make_url(EMBEDDED_DATABASE), repr=False
    )
    secret_keys: Annotated[tuple[str, ...], NoDecode, PlainValidator(values.secret_keys)] | None = (
        Field(None, repr=False)
    )
    email_sender: Annotated[str, PlainValidator(values.email_sender)] = "console"
    email_from: Annotated[Address, NoDecode, PlainValidator(values.email_from)] = Address(
        username="identity", domain="localhost"
    )
    verification_url: Annotated[str, PlainValidator(values.verification_url)] = (
        "http://localhost:3000/verify-email?token={token}"
    )
    verification_ttl: Annotated[timedelta, NoDecode, PlainValidator(values.verification_ttl)] = (
        timedelta(hours=24)
    )
    smtp_host: str = Field("localhost", min_length=1)
    smtp_port: int = Field(25, ge=1, le=65535)
    smtp_username: str | None = Field(None, min_length=1)
    smtp_password: SecretStr | None = Field(None, min_length=1)
    smtp_tls: Literal["none", "starttls", "tls"] = "starttls"
    ses_region: str | None = Field(None, pattern=r"^[a-z0-9-]{1,32}$")
    ses_configuration_set: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    rate_limit: Annotated[values.Rate, NoDecode, PlainValidator(values.rate)] = values.Rate(
        100, timedelta(seconds=60)
    )
    rate_limits: Annotated[
        Mapping[str, values.Rate], NoDecode, PlainValidator(values.rates_by_rpc)
    ] = Field(default_factory=dict)
    rate_limit_store: Annotated[str, PlainValidator(values.rate_limit_store)] = Field(
        "memory://", repr=False
    )
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, PlainValidator(values.trusted_proxies)
    ] = ()
    tls_cert: Annotated[Path, PlainValidator(values.path)] | None = None
    tls_key: Annotated[Path, PlainValidator(values.path)] | None = None
    tls_client_ca: Annotated[Path, PlainValidator(values.path)] | None = None
    callers_file: Annotated[Path, PlainValidator(values.path)] | None = None
    allow_plaintext: bool = False
    workers: int = Field(1, ge=1, le=MAXIMUM_WORKERS)
    bcrypt_cost: int = Field(12, ge=4, le=16)
    reflection: bool = True
    metrics_listen: Annotated[values.Endpoint, NoDecode, PlainValidator(values.endpoint)] | None = (
        None
    )
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _smtp_login_is_whole(self) -> Self:
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise PydanticCustomError(
                "smtp_login", "IDENTITY_SMTP_USERNAME and IDENTITY_SMTP_PASSWORD go together"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise PydanticCustomError("tls", "IDENTITY_TLS_CERT and IDENTITY_TLS_KEY go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise PydanticCustomError("tls", "IDENTITY_TLS_CLIENT_CA: needs IDENTITY_TLS_CERT")
        if self.callers_file is not None and self.tls_client_ca is None:
            raise PydanticCustomError(
                "callers",
                "IDENTITY_CALLERS_FILE: needs IDENTITY_TLS_CLIENT_CA, "
                "because callers are told by their certificates",
            )
        return self

    @model_validator(mode="after")
    def _passwords_are_not_sent_in_the_clear(self) -> Self:
        if self.tls_cert is None and not (self.listen.is_loopback or self.allow_plaintext):
            raise PydanticCustomError(
                "plaintext",
                "IDENTITY_LISTEN: others could read along: set IDENTITY_TLS_CERT and "
                "IDENTITY_TLS_KEY, or IDENTITY_ALLOW_PLAINTEXT=1 behind a mesh that encrypts",
            )
        return self

    @model_validator(mode="after")
    def _workers_count_together(self) -> Self:
        if self.workers > 1 and self.rate_limit_store == "memory://":
            raise PydanticCustomError(
                "workers",
                "IDENTITY_WORKERS: each worker would count calls by itself: "
                "set IDENTITY_RATE_LIMIT_STORE to valkey://HOST:6379, or IDENTITY_WORKERS=1",
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


def secret_files() -> dict[str, Path]:
    """The files that settings are read from, by the variable that names each."""
    names = [f"{PREFIX}{field.upper()}_FILE" for field in _FROM_FILES]
    return {name: Path(os.environ[name]) for name in names if name in os.environ}


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
        raise ConfigurationError(f"{name}: there is no such setting")
