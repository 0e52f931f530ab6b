"""What the log holds of a call, and what it never holds."""

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from sqlalchemy import text

from identity.database import Database
from tests.mailbox import Mailbox
from tests.refusals import refused
from tests.requests import registration, verification
from tests.rpc.conftest import Serve

CANARY_PASSWORD = "Canary-Password-9!"
CANARY_NAME = "canary.name"
CANARY_ADDRESS = "canary.address@example.com"

Rows = Callable[[str], list[dict[str, object]]]


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


def test_a_call_is_one_line_with_what_an_operator_needs(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    running = serve()
    refused(running.stub.VerifyEmail, verification("x"), metadata=(("x-request-id", "order-7"),))
    running.service.stop()
    (line,) = [line for line in lines(capfd) if line["event"] == "rpc"]
    assert line["method"] == "/identity.v1.IdentityService/VerifyEmail"
    assert (line["code"], line["reason"]) == ("INVALID_ARGUMENT", "TOKEN_INVALID")
    assert (line["client"], line["request_id"]) == ("127.0.0.1", "order-7")
    assert line["duration_ms"] >= 0
    assert line["time"].endswith("Z")


def test_the_line_of_a_forwarded_call_names_the_forwarded_client(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    running = serve(TRUSTED_PROXIES="127.0.0.1")
    forwarded = (("x-forwarded-for", "[2001:db8:1:2::7]:443"),)
    refused(running.stub.VerifyEmail, verification("x"), metadata=forwarded)
    running.service.stop()
    (line,) = [line for line in lines(capfd) if line["event"] == "rpc"]
    assert line["client"] == "2001:db8:1:2::/64"


def test_a_successful_call_has_its_line_too(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    running = serve()
    running.stub.Register(registration())
    running.service.stop()
    (line,) = [line for line in lines(capfd) if line["event"] == "rpc"]
    assert (line["method"], line["code"]) == ("/identity.v1.IdentityService/Register", "OK")


def test_no_secret_name_or_address_reaches_a_log_line_an_error_or_a_table(
    serve: Serve,
    mailbox: Mailbox,
    database: Database,
    rows: Rows,
    capfd: pytest.CaptureFixture[str],
) -> None:
    running = serve(LOG_LEVEL="debug")
    stub = running.stub
    canary = registration(CANARY_NAME, CANARY_ADDRESS, CANARY_PASSWORD)
    stub.Register(canary)
    token = mailbox.next_token()
    refusals = [refused(stub.Register, canary)]
    refusals.append(refused(stub.Register, registration(CANARY_NAME, "x", CANARY_PASSWORD + "\0")))
    refusals.append(refused(stub.VerifyEmail, verification(token[:-1])))
    stub.VerifyEmail(verification(token))
    refusals.append(refused(stub.VerifyEmail, verification(token)))
    tables = str([rows(table) for table in ("users", "verifications", "outbox")])
    with database.write() as connection:  # from here on, everything is unforeseen
        connection.execute(text("DROP TABLE outbox"))
    refusals.append(
        refused(stub.Register, registration("canary2", "canary2" + CANARY_ADDRESS, CANARY_PASSWORD))
    )
    assert refusals[-1].code is grpc.StatusCode.INTERNAL
    running.service.stop()
    logged = capfd.readouterr().err
    assert '"event":"unforeseen"' in logged
    for secret in (CANARY_PASSWORD, token, CANARY_NAME, "canary"):
        assert secret not in logged
        assert all(secret not in str(refusal) for refusal in refusals)
    for secret in (CANARY_PASSWORD, token):
        assert secret not in tables


def test_a_username_with_a_newline_makes_no_second_line(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    running = serve()
    refused(running.stub.Register, registration('ann\n{"event": "rpc"}'))
    running.service.stop()
    assert len([line for line in lines(capfd) if line["event"] == "rpc"]) == 1


def test_the_traceback_of_a_defect_is_logged_once_under_the_request_id(
    serve: Serve, database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    running = serve()
    with database.write() as connection:
        connection.execute(text("DROP TABLE outbox"))
    refused(running.stub.Register, registration(), metadata=(("x-request-id", "order-8"),))
    running.service.stop()
    (line,) = [line for line in lines(capfd) if line["event"] == "unforeseen"]
    assert line["request_id"] == "order-8"
    assert "in register" in line["traceback"]
