"""Settings out of the environment: defaults, good values, and mistakes told in one line."""

import os
from datetime import timedelta
from email.headerregistry import Address
from ipaddress import ip_network
from pathlib import Path

import pydantic
import pytest
from sqlalchemy.engine import make_url

from identity.config import ConfigurationError, Settings, load
from identity.values import Endpoint, ValkeyServer, valkey_server

KEY = "k3y-" + "k" * 28  # 32 characters
OTHER_KEY = "0ther-" + "o" * 26
POSTGRES = "postgresql+psycopg://identity:hunter2@db.internal:5432/identity"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("IDENTITY_"):
            monkeypatch.delenv(name)


def loaded(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    """The settings under these variables, named without the prefix."""
    for name, value in environment.items():
        monkeypatch.setenv(f"IDENTITY_{name}", value)
    return load()


def mistake(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """What the operator is told of these variables: one line without any of their values."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(monkeypatch, **environment)
    told = str(caught.value)
    assert "\n" not in told
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return told


def test_the_defaults_are_those_of_the_embedded_case() -> None:
    settings = load()
    assert str(settings.listen) == "127.0.0.1:50051"
    assert str(settings.database_url) == "sqlite:///var/identity.db"
    assert settings.is_embedded
    assert settings.secret_keys is None  # made at the first start
    assert settings.email_sender == "console"
    assert str(settings.email_from) == "identity@localhost"
    assert settings.verification_url == "http://localhost:3000/verify-email?token={token}"
    assert settings.verification_ttl == timedelta(hours=24)
    assert (settings.smtp_host, settings.smtp_port) == ("localhost", 25)
    assert (settings.smtp_username, settings.smtp_password) == (None, None)
    assert settings.smtp_tls == "starttls"
    assert settings.rate_limit == (100, timedelta(seconds=60))
    assert settings.rate_limits == {}
    assert settings.rate_limit_store == "memory://"
    assert (settings.tls_cert, settings.tls_key, settings.tls_client_ca) == (None, None, None)
    assert (settings.callers_file, settings.allow_plaintext) == (None, False)
    assert (settings.workers, settings.metrics_listen) == (1, None)
    assert settings.trusted_proxies == ()
    assert settings.bcrypt_cost == 12
    assert settings.reflection is True
    assert (settings.log_format, settings.log_level) == ("console", "info")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LISTEN", "127.0.0.2:0", Endpoint("127.0.0.2", 0)),
        ("METRICS_LISTEN", "0.0.0.0:9464", Endpoint("0.0.0.0", 9464)),  # noqa: S104 - only parsed
        ("LISTEN", "localhost:65535", Endpoint("localhost", 65535)),
        ("RATE_LIMIT_STORE", "valkey://a:6379/1", "valkey://a:6379/1"),
        ("RATE_LIMIT_STORE", "valkeys://u:p@a", "valkeys://u:p@a"),
        ("RATE_LIMITS", "Register=5/60s", {"Register": (5, timedelta(seconds=60))}),
        (
            "RATE_LIMITS",
            "Register=5/60s, VerifyEmail=9/1h",
            {"Register": (5, timedelta(seconds=60)), "VerifyEmail": (9, timedelta(hours=1))},
        ),
        ("LISTEN", "[::1]:50051", Endpoint("::1", 50051)),
        ("DATABASE_URL", POSTGRES, make_url(POSTGRES)),
        ("DATABASE_URL", "sqlite:////srv/x.db", make_url("sqlite:////srv/x.db")),
        ("SECRET_KEYS", KEY, (KEY,)),
        ("SECRET_KEYS", f"{OTHER_KEY},{KEY}", (OTHER_KEY, KEY)),
        ("SECRET_KEYS", f" {OTHER_KEY} , {KEY} ", (OTHER_KEY, KEY)),
        ("EMAIL_SENDER", "console", "console"),
        ("EMAIL_SENDER", "smtp", "smtp"),
        ("EMAIL_FROM", "id@example.com", Address(addr_spec="id@example.com")),
        ("EMAIL_FROM", '"Id, Inc." <id@example.com>', Address("Id, Inc.", "id", "example.com")),
        ("VERIFICATION_URL", "https://example.com/v/{token}", "https://example.com/v/{token}"),
        ("VERIFICATION_TTL", "60s", timedelta(minutes=1)),
        ("VERIFICATION_TTL", "30m", timedelta(minutes=30)),
        ("VERIFICATION_TTL", "72h", timedelta(hours=72)),
        ("VERIFICATION_TTL", "3d", timedelta(hours=72)),
        ("SMTP_HOST", "mail.example.com", "mail.example.com"),
        ("SMTP_PORT", "65535", 65535),
        ("SMTP_TLS", "none", "none"),
        ("SMTP_TLS", "starttls", "starttls"),
        ("SMTP_TLS", "tls", "tls"),
        ("RATE_LIMIT", "1/1s", (1, timedelta(seconds=1))),
        ("RATE_LIMIT", "100000/1d", (100_000, timedelta(days=1))),
        ("RATE_LIMIT", "5000/15m", (5_000, timedelta(minutes=15))),
        ("RATE_LIMIT_STORE", "memory://", "memory://"),
        ("TRUSTED_PROXIES", "192.0.2.7", (ip_network("192.0.2.7/32"),)),
        ("TRUSTED_PROXIES", "10.0.0.0/8", (ip_network("10.0.0.0/8"),)),
        ("TRUSTED_PROXIES", "0.0.0.0/0", (ip_network("0.0.0.0/0"),)),
        ("TRUSTED_PROXIES", "2001:db8::1", (ip_network("2001:db8::1/128"),)),
        ("TRUSTED_PROXIES", "::ffff:10.0.0.0/104", (ip_network("::ffff:a00:0/104"),)),
        (
            "TRUSTED_PROXIES",
            " 10.0.0.0/8 , fd00::/8 ",
            (ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
        ),
        ("TRUSTED_PROXIES", ",".join(["10.0.0.1"] * 100), (ip_network("10.0.0.1"),) * 100),
        ("BCRYPT_COST", "4", 4),
        ("BCRYPT_COST", "16", 16),
        ("REFLECTION", "on", True),
        ("REFLECTION", "off", False),
        ("REFLECTION", "false", False),
        ("LOG_FORMAT", "json", "json"),
        ("LOG_LEVEL", "debug", "debug"),
        ("LOG_LEVEL", "error", "error"),
    ],
)
def test_a_usable_value_is_taken(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object
) -> None:
    assert getattr(loaded(monkeypatch, **{name: value}), name.lower()) == expected


def test_any_other_database_is_not_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not loaded(monkeypatch, DATABASE_URL="sqlite:///other.db").is_embedded
    assert not loaded(monkeypatch, DATABASE_URL=POSTGRES).is_embedded
    assert loaded(monkeypatch, DATABASE_URL="sqlite:///var/identity.db").is_embedded


@pytest.mark.parametrize("text", ["127.0.0.1:50051", "[::1]:50051", "localhost:0"])
def test_an_endpoint_is_told_as_it_is_set(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert str(loaded(monkeypatch, LISTEN=text).listen) == text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("LISTEN", ["", "zzz", "zzz:", ":50051", "zzz:65536", "zzz:-1", "zzz:1x", "zzz:\u0661"]),
        ("DATABASE_URL", ["", "zzz", "sqlite://", "sqlite:///:memory:", "mysql://zzz/zzz"]),
        ("DATABASE_URL", ["postgresql://zzz/zzz", "postgresql+psycopg2://zzz/zzz"]),
        ("SECRET_KEYS", ["", "zzz", "z" * 31, f"{'z' * 32},", f"{'z' * 32},zzz", ",,,"]),
        ("EMAIL_SENDER", ["", "zzz", "SMTP"]),
        ("SES_REGION", ["", "eu west", "ZZZ"]),
        ("SES_CONFIGURATION_SET", ["", "z z"]),
        ("DATABASE_URL", ["postgresql+psycopg://u:p@zzz:zzz@host/db"]),
        ("EMAIL_FROM", ["", "zzz", "zzz@", "@zzz", "zzz zzz@zzz", "zzz@zzz\r\nBcc: zzz@zzz"]),
        ("EMAIL_FROM", ["\u00fczzz@zzz", "zzz@zzz..zzz", "zzz@one.org, zzz@two.org"]),
        ("VERIFICATION_URL", ["", "zzz", "http://zzz/", "http://zzz/{token}/{token}"]),
        ("VERIFICATION_URL", ["ftp://zzz/{token}", "zzz/{token}", "http:///zzz/{token}"]),
        ("VERIFICATION_URL", ["http://zzz/ {token}", "http://zzz/\r\n{token}"]),
        ("VERIFICATION_URL", ["http://z\u00fcz/{token}", "http://zzz/{token}" + "z" * 900]),
        ("VERIFICATION_URL", ["http://[zzz]/{token}"]),
        ("VERIFICATION_TTL", ["", "zzz", "24", "24 h", "1.5h", "-1h", "24H", "59s", "73h", "0d"]),
        ("SMTP_HOST", [""]),
        ("SMTP_PORT", ["", "zzz", "0", "65536", "-1", "2.5"]),
        ("SMTP_TLS", ["", "zzz", "on"]),
        ("RATE_LIMIT", ["", "zzz", "100", "100/60", "100/zzz", "/60s", "zzz/60s", "-1/60s"]),
        ("RATE_LIMIT", ["0/60s", "1000001/60s", "100/0s", "100/25h", "1.5/60s", "100/60s/60s"]),
        ("RATE_LIMIT_STORE", ["", "zzz", "redis://zzz", "memory://zzz", "valkey:zzz", "valkey://"]),
        ("RATE_LIMIT_STORE", ["valkey://zzz:zzz", "valkey://zzz:65536", "valkey://zzz:0"]),
        (
            "RATE_LIMIT_STORE",
            ["valkey://h/zzz", "valkey://h/-1", "valkey://h/1/zzz", "valkey://[zzz"],
        ),
        ("RATE_LIMIT_STORE", ["valkey://zzz@h", "valkey://zzz:@h", "valkey://:zzz/zzz@h"]),
        (
            "RATE_LIMIT_STORE",
            ["valkeys://h?ssl_cert_reqs=none", "valkey://:zzz#zzz@h", "valkey://h?"],
        ),
        ("RATE_LIMIT_STORE", ["valkey://h\nzzz", "valkey://z zz", "valkey://z\u00fczz"]),
        ("TRUSTED_PROXIES", ["", "zzz", "zzz/8", ",", "10.0.0.1,", "10.0.0.1,,10.0.0.2"]),
        ("TRUSTED_PROXIES", ["10.0.0.1/8", "2001:db8::1/64", "10.0.0.0/33", "fd00::/129"]),
        ("TRUSTED_PROXIES", ["10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/8/8", "/8"]),
        ("TRUSTED_PROXIES", ["10.0.0.0/255.0.0.0", "10.0.0.0/0.255.255.255", "10.0.0.0 /8"]),
        (
            "TRUSTED_PROXIES",
            ["1.2.3", "010.0.0.1", "167772161", "10.0.0.\u0661", "10.0.0.1 10.0.0.2"],
        ),
        ("TRUSTED_PROXIES", ["[fd00::1]", "10.0.0.1:80", "fe80::1%eth0", "fe80::%eth0/64"]),
        ("TRUSTED_PROXIES", ["*", "localhost", "unix:", ",".join(["10.0.0.1"] * 101)]),
        ("BCRYPT_COST", ["", "zzz", "3", "17", "12.5"]),
        ("REFLECTION", ["", "zzz", "2"]),
        ("LOG_FORMAT", ["", "zzz", "text"]),
        ("LOG_LEVEL", ["", "zzz", "trace"]),
    ],
)
def test_an_unusable_value_is_told_by_its_name_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, values: list[str]
) -> None:
    wrong = {}
    for value in values:
        try:
            told = mistake(monkeypatch, **{name: value})
        except pytest.fail.Exception:
            wrong[value] = "accepted"
        else:
            if not told.startswith(f"IDENTITY_{name}: ") or "zzz" in told:
                wrong[value] = told
    assert wrong == {}


@pytest.mark.parametrize("value", ["10.11.12.13/8", "10.11.12.999", "10.11.12.13/0.0.0.255"])
def test_a_mistaken_proxy_is_not_quoted(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert "10.11.12" not in mistake(monkeypatch, TRUSTED_PROXIES=value)


def test_all_unusable_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = mistake(monkeypatch, BCRYPT_COST="zzz", LISTEN="zzz", LOG_LEVEL="zzz")
    for name in ("IDENTITY_BCRYPT_COST: ", "IDENTITY_LISTEN: ", "IDENTITY_LOG_LEVEL: "):
        assert name in told


@pytest.mark.parametrize("given", ["SMTP_USERNAME", "SMTP_PASSWORD"])
def test_a_user_name_and_a_password_for_smtp_go_together(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    told = mistake(monkeypatch, **{given: "zzz"})
    assert "IDENTITY_SMTP_USERNAME" in told
    assert "IDENTITY_SMTP_PASSWORD" in told
    assert "zzz" not in told


# Names


@pytest.mark.parametrize(
    "name", ["LISTN", "SMTP", "SECRET_KEY", "PORTS", "SERVICE", "LISTEN_FILE", "listen", ""]
)
def test_an_unknown_name_stops_the_start(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert mistake(monkeypatch, **{name: "zzz"}) == f"IDENTITY_{name}: there is no such setting"


@pytest.mark.parametrize("name", ["identity_listen", "Identity_Listen"])
def test_a_name_in_other_letters_stops_the_start_too(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It would be read or ignored without a word, neither of which the operator expects."""
    monkeypatch.setenv(name, "127.0.0.1:1")
    assert mistake(monkeypatch) == f"{name}: there is no such setting"


@pytest.mark.parametrize(
    "name",
    ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC", "PORT", "PORT_50051_TCP_ADDR"],
)
def test_what_kubernetes_injects_for_a_service_of_that_name_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert loaded(monkeypatch, **{name: "tcp://10.0.0.1:50051"}) == Settings()


def test_other_programs_variables_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN", "zzz")
    monkeypatch.setenv("XIDENTITY_LISTEN", "zzz")
    assert str(load().listen) == "127.0.0.1:50051"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"TLS_CERT": "a.pem"}, "IDENTITY_TLS_CERT and IDENTITY_TLS_KEY go together"),
        ({"TLS_KEY": "a.pem"}, "IDENTITY_TLS_CERT and IDENTITY_TLS_KEY go together"),
        ({"TLS_CLIENT_CA": "a.pem"}, "IDENTITY_TLS_CLIENT_CA: needs IDENTITY_TLS_CERT"),
        ({"CALLERS_FILE": "a.toml"}, "IDENTITY_CALLERS_FILE: needs IDENTITY_TLS_CLIENT_CA"),
        ({"LISTEN": "0.0.0.0:1"}, "IDENTITY_LISTEN: others could read along"),
        ({"LISTEN": "[::]:1"}, "IDENTITY_LISTEN: others could read along"),
        ({"LISTEN": "identity.example.com:1"}, "IDENTITY_LISTEN: others could read along"),
        ({"WORKERS": "2"}, "IDENTITY_WORKERS: each worker would count calls by itself"),
    ],
)
def test_settings_that_need_each_other(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], told: str
) -> None:
    assert mistake(monkeypatch, **environment).startswith(told)


@pytest.mark.parametrize(
    "environment",
    [
        {"LISTEN": "127.0.0.9:1"},
        {"LISTEN": "[::1]:1"},
        {"LISTEN": "localhost:1"},
        {"LISTEN": "0.0.0.0:1", "ALLOW_PLAINTEXT": "1"},
        {"LISTEN": "0.0.0.0:1", "TLS_CERT": "a.pem", "TLS_KEY": "b.pem"},
    ],
)
def test_passwords_are_not_sent_in_the_clear_but_where_it_is_said(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    assert loaded(monkeypatch, **environment).listen.port == 1


def test_several_workers_count_in_a_shared_store(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, WORKERS="4", RATE_LIMIT_STORE="valkey://limits:6379")
    assert (settings.workers, settings.rate_limit_store) == (4, "valkey://limits:6379")


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("valkey://limits", ValkeyServer("limits", 6379)),
        ("valkey://limits/", ValkeyServer("limits", 6379)),
        ("valkey://[::1]:1/15", ValkeyServer("::1", 1, database=15)),
        ("valkeys://limits:7", ValkeyServer("limits", 7, has_tls=True)),
        ("valkey://:p%40%2Fss@limits", ValkeyServer("limits", 6379, password="p@/ss")),
        ("valkey://ann:p@limits", ValkeyServer("limits", 6379, username="ann", password="p")),
    ],
)
def test_a_store_is_found_by_its_url(url: str, server: ValkeyServer) -> None:
    assert valkey_server(url) == server


# Secrets


@pytest.mark.parametrize(
    ("name", "value", "others"),
    [
        ("DATABASE_URL", POSTGRES, {}),
        ("SECRET_KEYS", f"{KEY},{OTHER_KEY}", {}),
        ("SMTP_PASSWORD", "hunter2", {"SMTP_USERNAME": "identity"}),
    ],
)
def test_a_secret_can_stand_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, others: dict[str, str]
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{value}\n")
    from_file = loaded(monkeypatch, **{f"{name}_FILE": str(file)}, **others)
    monkeypatch.delenv(f"IDENTITY_{name}_FILE")
    assert from_file == loaded(monkeypatch, **{name: value}, **others)


@pytest.mark.parametrize("name", ["DATABASE_URL", "SECRET_KEYS", "SMTP_PASSWORD"])
def test_a_setting_and_its_file_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "zzz"
    file.write_text("zzz")
    told = mistake(monkeypatch, **{name: "zzz", f"{name}_FILE": str(file)})
    assert told.startswith(f"IDENTITY_{name}_FILE: ")
    assert "zzz" not in told


@pytest.mark.parametrize("name", ["DATABASE_URL", "SECRET_KEYS", "SMTP_PASSWORD"])
def test_a_file_that_cannot_be_read_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    binary = tmp_path / "zzz"
    binary.write_bytes(b"\xff\xfe\x80")
    for path in (str(tmp_path / "zzz missing"), str(tmp_path), str(binary), ""):
        told = mistake(monkeypatch, **{f"{name}_FILE": path})
        assert told.startswith(f"IDENTITY_{name}_FILE: cannot be read: ")
        assert "zzz" not in told


def test_a_file_with_an_unusable_value_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text("zzz")
    told = mistake(monkeypatch, SECRET_KEYS_FILE=str(file))
    assert told.startswith("IDENTITY_SECRET_KEYS")
    assert "zzz" not in told


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql+psycopg://identity:hunter2/identity", id="host forgotten"),
        pytest.param("postgresql+psycopg://identity@db:hunter2/identity", id="for the port"),
        pytest.param("postgresql+psycopg://identity:hunter2@a:1,b:2/identity", id="two hosts"),
        pytest.param("postgresql+psycopg://i:hunter2@/i?host=a&host=b&port=1", id="one port"),
        pytest.param("postgresql://identity:hunter2@db/identity", id="another driver"),
        pytest.param("postgresql+psycopg:identity:hunter2@db/identity", id="slashes forgotten"),
    ],
)
def test_a_mistaken_database_url_does_not_betray_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    told = mistake(monkeypatch, DATABASE_URL=url)
    assert told.startswith("IDENTITY_DATABASE_URL: ")
    assert "hunter2" not in told


def test_secrets_are_not_shown_by_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(
        monkeypatch,
        DATABASE_URL=POSTGRES,
        SECRET_KEYS=f"{KEY},{OTHER_KEY}",
        SMTP_USERNAME="identity",
        SMTP_PASSWORD="sm7p-password",
    )
    shown = f"{settings} {settings!r}"
    assert [s for s in ("hunter2", KEY, OTHER_KEY, "sm7p-password") if s in shown] == []
    assert settings.smtp_password is not None
    assert settings.smtp_password.get_secret_value() == "sm7p-password"


def test_settings_do_not_change_once_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load()
    with pytest.raises(pydantic.ValidationError):
        settings.bcrypt_cost = 4  # type: ignore[misc]
    monkeypatch.setenv("IDENTITY_BCRYPT_COST", "5")
    assert settings.bcrypt_cost == 12
