"""Who may call what, on a real server with real certificates."""

import json
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from identity import policy
from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.certificates import Authority, dns, uri
from tests.refusals import Refusal, decode, refused
from tests.requests import registration, verification
from tests.rpc.conftest import Serve
from tests.rpc.secured import ListCallers, authority, channel, list_callers, secured

__all__ = ["authority", "list_callers", "secured"]

SIGNUP = "spiffe://example.com/signup"
SUPPORT = "support.example.com"
GATEWAY = "spiffe://example.com/gateway"
CALLERS = f"""
[[caller]]
name = "{SIGNUP}"
methods = ["identity.v1.IdentityService/Register"]
rate_limit = "3/60s"

[[caller]]
name = "{SUPPORT}"
methods = []

[[caller]]
name = "{GATEWAY}"
methods = ["identity.v1.IdentityService/VerifyEmail"]
forwards_clients = true
"""
METHODS = sorted(policy.methods_of(policy.SERVICES))


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401
    """Callers are told before the database is touched: one kind of it is enough."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def listed(list_callers: ListCallers) -> Serve:
    """Starts a service with callers that are named."""
    return list_callers(CALLERS)


def call(opened: grpc.Channel, method: str, **options: Any) -> Refusal:  # noqa: ANN401
    """Calls a method with an empty request, which every RPC refuses if it gets to see it."""
    with pytest.raises(grpc.RpcError) as caught:
        opened.unary_unary(method)(b"", timeout=20, **options)
    return decode(caught.value)


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found = (json.loads(line) for line in captured.readouterr().err.splitlines())
    return [line for line in found if line["event"] == "rpc"]


@pytest.mark.parametrize("method", METHODS)
def test_a_listed_caller_may_call_its_methods_and_no_others(
    listed: Serve, authority: Authority, method: str
) -> None:
    shown = authority.issue("signup", uri(SIGNUP))
    with channel(listed(), authority, shown) as opened:
        refusal = call(opened, method)
    if method == "/identity.v1.IdentityService/Register":
        assert refusal.reason == "INVALID_FIELDS"
    else:
        assert (refusal.code, refusal.reason, refusal.sentence) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "CALLER_NOT_ALLOWED",
            "This caller may not call this method.",
        )
        assert {"x-request-id", "x-ratelimit-remaining"} <= refusal.metadata.keys()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "names",
    [
        pytest.param((), id="only a common name"),
        pytest.param((dns("other.example.com"),), id="not listed"),
        pytest.param((dns(SUPPORT),), id="listed with no methods"),
        pytest.param((dns(SIGNUP.removeprefix("spiffe://")),), id="a part of a listed name"),
        pytest.param((uri(SIGNUP.upper()),), id="a listed name in other letters"),
    ],
)
def test_nobody_else_may_call_anything(
    listed: Serve, authority: Authority, method: str, names: tuple[Any, ...]
) -> None:
    # A common name is no name, even if it is a listed one.
    with channel(listed(), authority, authority.issue(SIGNUP, *names)) as opened:
        assert call(opened, method).reason == "CALLER_NOT_ALLOWED"


@pytest.mark.parametrize("method", METHODS)
def test_without_a_list_every_named_caller_may_call_what_is_open(
    secured: Serve, authority: Authority, method: str
) -> None:
    running = secured()
    with ExitStack() as stack:
        named = authority.issue("x", dns("any.example.com"))
        nameless = authority.issue("any.example.com")
        by_name = stack.enter_context(channel(running, authority, named))
        without = stack.enter_context(channel(running, authority, nameless))
        may = call(by_name, method).reason != "CALLER_NOT_ALLOWED"
        assert may is policy.RULES[method].is_open
        assert call(without, method).reason == "CALLER_NOT_ALLOWED"


@pytest.mark.parametrize("method", METHODS)
def test_without_certificates_only_what_is_open_may_be_called(serve: Serve, method: str) -> None:
    may = call(serve().channel, method).reason != "CALLER_NOT_ALLOWED"
    assert may is policy.RULES[method].is_open


@pytest.mark.parametrize(
    "path",
    [
        "identity.v1.IdentityService/Register",
        "//identity.v1.IdentityService/Register",
        "/identity.v1.identityservice/register",
        "/IDENTITY.V1.IDENTITYSERVICE/REGISTER",
        "/identity.v1.IdentityService/Register/",
        "/identity.v1.IdentityService/Register ",
        "/identity.v1.IdentityService//Register",
        "/identity.v1.IdentityService/%52egister",
        "/grpc.health.v1.Health/../identity.v1.IdentityService/Register",
    ],
)
def test_no_other_spelling_of_a_path_is_a_way_in(
    secured: Serve, authority: Authority, path: str
) -> None:
    shown = authority.issue("x", dns("any.example.com"))
    with channel(secured(), authority, shown) as opened, pytest.raises(grpc.RpcError) as caught:
        opened.unary_unary(path)(registration().SerializeToString(), timeout=20)
    # gRPC's core refuses a path without its slash itself, as a broken request.
    assert caught.value.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN}


def test_health_is_open_to_everybody_with_a_certificate(
    listed: Serve, authority: Authority
) -> None:
    with channel(listed(), authority, authority.issue("kubelet")) as opened:
        answer = HealthStub(opened).Check(HealthCheckRequest(), timeout=20)
    assert answer.status == HealthCheckResponse.SERVING


def test_a_caller_is_counted_and_logged_by_its_name_under_its_own_limit(
    listed: Serve, authority: Authority, capfd: pytest.CaptureFixture[str]
) -> None:
    running = listed(RATE_LIMIT="2/60s")
    with channel(running, authority, authority.issue("a", uri(SIGNUP))) as opened:
        register = IdentityServiceStub(opened).Register
        reasons = [refused(register, registration(username="")).reason for _ in range(4)]
    with channel(running, authority, authority.issue("b", dns("x.example.com"))) as opened:
        reasons += [call(opened, METHODS[0]).reason for _ in range(3)]
    assert reasons == [
        *["INVALID_FIELDS"] * 3,
        "RATE_LIMITED",
        *["CALLER_NOT_ALLOWED"] * 2,
        "RATE_LIMITED",
    ]
    running.service.stop()
    assert [line["client"] for line in lines(capfd)] == [SIGNUP] * 4 + ["x.example.com"] * 3


def test_a_caller_that_forwards_is_believed_and_no_other(
    listed: Serve, authority: Authority, capfd: pytest.CaptureFixture[str]
) -> None:
    running = listed()
    forwarded = (("x-forwarded-for", "192.0.2.7"),)
    for name in (GATEWAY, SIGNUP):
        with channel(running, authority, authority.issue("x", uri(name))) as opened:
            call(opened, "/identity.v1.IdentityService/VerifyEmail", metadata=forwarded)
    running.service.stop()
    assert [line["client"] for line in lines(capfd)] == ["192.0.2.7", SIGNUP]


def test_an_rpc_can_have_a_limit_of_its_own(serve: Serve) -> None:
    stub = serve(RATE_LIMIT="2/60s", RATE_LIMITS="VerifyEmail=1/60s").stub
    reasons = [refused(stub.VerifyEmail, verification("x")).reason for _ in range(2)]
    reasons += [refused(stub.Register, registration(username="")).reason for _ in range(3)]
    assert reasons == ["TOKEN_INVALID", "RATE_LIMITED", *["INVALID_FIELDS"] * 2, "RATE_LIMITED"]
