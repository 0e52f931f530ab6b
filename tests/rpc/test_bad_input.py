"""What hostile or careless callers send: a clean refusal, and nothing stored."""

from collections.abc import Callable

import grpc
import pytest

from identity.v1.identity_pb2 import RegisterRequest
from tests.refusals import refused
from tests.requests import PASSWORD
from tests.rpc.conftest import Serve

USERNAMES = {
    "NUL": "an\0n",
    "control": "an\x1bn",
    "newline": "ann\n",
    "carriage return": "an\r\nn",
    "space": "an n",
    "zero-width space": "an\u200bn",
    "zero-width joiner": "an\u200dn",
    "right-to-left mark": "an\u200fn",
    "right-to-left override": "\u202enna",
    "Cyrillic look-alike": "\u0430nn",
    "full-width digit": "ann\uff11",
    "Turkish dotless i": "ann\u0131",
    "Kelvin sign": "\u212aann",
    "reserved": "Admin",
    "slash": "../ann",
}
EMAILS = {
    "255 octets": "a" * 64 + "@" + ".".join(["b" * 61] * 3) + ".bbbb",
    "local part of 65": "a" * 65 + "@example.com",
    "two @": "a@b@example.com",
    "quoted": '"ann"@example.com',
    "quoted @": '"a@b"@example.com',
    "address literal": "ann@[127.0.0.1]",
    "IPv6 literal": "ann@[IPv6:::1]",
    "encoded word": "=?utf-8?q?=61?=@example.com",
    "CR LF": "ann@example.com\r\nBcc: eve@example.com",
    "CR LF in the local part": "ann\r\n@example.com",
    "NUL": "ann\0@example.com",
    "right-to-left mark": "ann\u200f@example.com",
    "zero-width in the domain": "ann@exam\u200bple.com",
    "Cyrillic local part": "\u0430nn@example.com",
    "comment": "ann(comment)@example.com",
    "display name": "Ann <ann@example.com>",
    "two addresses": "ann@example.com,eve@example.com",
    "no dot": "ann@localhost",
    "special use": "ann@example.test",
    "spaces around": " ann@example.com ",
    "trailing dot": "ann@example.com.",
}
PASSWORDS = {
    "NUL": "Correct-Horse\0-7!",
    "CR LF": "Correct-Horse-7!\r\n",
    "delete": "Correct-Horse-7!\x7f",
    "C1 control": "Correct-Horse-7!\x85",
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}: {name}")
        for field, values in (("username", USERNAMES), ("email", EMAILS), ("password", PASSWORDS))
        for name, value in values.items()
    ]
    + [pytest.param("request_id", "{00000000-0000-0000-0000-000000000000}\r\n", id="request_id")],
)
def test_bad_input_is_an_invalid_argument_of_its_field(
    serve: Serve, rows: Callable[[str], list[dict[str, object]]], field: str, value: str
) -> None:
    fields = {"username": "ann", "email": "ann@example.com", "password": PASSWORD} | {field: value}
    refusal = refused(serve().stub.Register, RegisterRequest(**fields))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELDS",
    )
    assert {broken for broken, _, _ in refusal.violations} == {field}
    assert rows("users") == []


def test_an_address_of_254_octets_is_accepted(serve: Serve) -> None:
    address = "a" * 64 + "@" + ".".join(["b" * 61] * 3) + ".bbb"
    assert len(address) == 254
    request = RegisterRequest(username="ann", email=address, password=PASSWORD)
    assert serve().stub.Register(request).email == address


def test_an_internationalised_domain_is_kept_in_ascii_and_is_one_address(serve: Serve) -> None:
    stub = serve().stub
    request = RegisterRequest(username="ann", email="Ann@B\u00dcCHER.example", password=PASSWORD)
    assert stub.Register(request).email == "ann@xn--bcher-kva.example"
    request = RegisterRequest(
        username="other", email="ann@xn--bcher-kva.example", password=PASSWORD
    )
    assert refused(stub.Register, request).reason == "EMAIL_TAKEN"
