"""The rate limit as clients meet it."""

import json
import socket
from contextlib import closing
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from identity.v1 import identity_pb2_grpc
from tests.refusals import refused
from tests.requests import verification
from tests.rpc.conftest import Running, Serve
from tests.valkey import Valkey

RETRY = {
    "methodConfig": [
        {
            "name": [{"service": "identity.v1.IdentityService"}],
            "retryPolicy": {
                "maxAttempts": 3,
                # So long that only the server's pushback can explain a retry within the deadline.
                "initialBackoff": "600s",
                "maxBackoff": "600s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


def test_a_client_with_a_retry_policy_waits_as_told_and_gets_through(serve: Serve) -> None:
    running = serve(RATE_LIMIT="1/2s")
    assert refused(running.stub.VerifyEmail, verification("x")).reason == "TOKEN_INVALID"
    options = (("grpc.service_config", json.dumps(RETRY)),)
    with grpc.insecure_channel(str(running.service.endpoint), options=options) as channel:
        retrying = identity_pb2_grpc.IdentityServiceStub(channel)
        refusal = refused(retrying.VerifyEmail, verification("x"), timeout=20)
    # Refused at first, admitted at the second attempt: by then it is the token that is wrong.
    assert refusal.reason == "TOKEN_INVALID"


def test_every_method_counts_and_a_refused_call_does_not(serve: Serve) -> None:
    stub = serve(RATE_LIMIT="3/60s").stub
    remaining = [
        refused(stub.VerifyEmail, verification("x")).metadata["x-ratelimit-remaining"]
        for _ in range(5)
    ]
    assert remaining == ["2", "1", "0", "0", "0"]


def remaining(running: Running, *forwarded: str) -> int:
    """The calls left to the client that these entries of `x-forwarded-for` name."""
    metadata = tuple(("x-forwarded-for", entry) for entry in forwarded)
    refusal = refused(running.stub.VerifyEmail, verification("x"), metadata=metadata)
    return int(refusal.metadata["x-ratelimit-remaining"])


def test_clients_behind_a_trusted_proxy_are_counted_apart(serve: Serve) -> None:
    running = serve(RATE_LIMIT="9/60s", TRUSTED_PROXIES="127.0.0.1")
    assert remaining(running, "192.0.2.1") == 8
    assert remaining(running, "192.0.2.1") == 7
    assert remaining(running, "192.0.2.2") == 8
    assert remaining(running) == 8  # the proxy's own


def test_a_refused_forwarded_client_leaves_the_others_in_peace(serve: Serve) -> None:
    running = serve(RATE_LIMIT="1/60s", TRUSTED_PROXIES="127.0.0.1")
    reasons = [
        refused(
            running.stub.VerifyEmail, verification("x"), metadata=(("x-forwarded-for", client),)
        ).reason
        for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2")
    ]
    assert reasons == ["TOKEN_INVALID", "RATE_LIMITED", "TOKEN_INVALID"]


def test_a_client_is_found_behind_a_chain_of_trusted_proxies(serve: Serve) -> None:
    running = serve(RATE_LIMIT="9/60s", TRUSTED_PROXIES="127.0.0.1,10.0.0.0/8")
    assert remaining(running, "192.0.2.1") == 8
    assert remaining(running, "192.0.2.2, 192.0.2.1, 10.0.0.1, 10.0.0.2") == 7


def test_of_repeated_entries_the_last_is_read(serve: Serve) -> None:
    """gRPC hands on no other, so that a chain in many entries ends at the peer: never at a lie."""
    running = serve(RATE_LIMIT="9/60s", TRUSTED_PROXIES="127.0.0.1,10.0.0.0/8")
    assert remaining(running, "192.0.2.1") == 8
    assert remaining(running, "198.51.100.1", "192.0.2.1, 10.0.0.1") == 7
    assert remaining(running) == 8
    assert remaining(running, "192.0.2.1", "10.0.0.1") == 7


def test_what_is_no_address_counts_as_the_proxy(serve: Serve) -> None:
    running = serve(RATE_LIMIT="9/60s", TRUSTED_PROXIES="127.0.0.1")
    assert remaining(running) == 8
    assert remaining(running, "rubbish") == 7
    assert remaining(running, "192.0.2.1, unknown") == 6
    assert remaining(running, "192.0.2.1", "") == 5


def test_what_a_caller_puts_before_the_proxys_word_does_not_count(serve: Serve) -> None:
    running = serve(RATE_LIMIT="9/60s", TRUSTED_PROXIES="127.0.0.1")
    forged = ("198.51.100.1", "127.0.0.1", "rubbish")
    left = [remaining(running, f"{claim}, 192.0.2.1") for claim in forged]
    assert left == [8, 7, 6]


@pytest.mark.parametrize("settings", [{}, {"TRUSTED_PROXIES": "192.0.2.0/24"}])
def test_a_peer_that_is_not_trusted_forwards_in_vain(
    serve: Serve, settings: dict[str, str]
) -> None:
    running = serve(RATE_LIMIT="9/60s", **settings)
    left = [remaining(running, f"192.0.2.{host}, 198.51.100.{host}") for host in range(3)]
    assert left == [8, 7, 6]


def test_calls_are_counted_in_the_shared_store(serve: Serve, valkey: Valkey) -> None:
    with closing(valkey.client()) as look:
        look.config_resetstat()
        running = serve(RATE_LIMIT="9/60s", RATE_LIMIT_STORE=f"valkey://127.0.0.1:{valkey.port}")
        assert remaining(running) == 8
        # Not the count: on a busy machine the answer may be late, and the call counted locally.
        assert "cmdstat_evalsha" in cast("dict[str, Any]", look.info("commandstats"))


def test_a_store_that_is_out_of_reach_at_the_start_stops_nothing(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    running = serve(RATE_LIMIT="1/60s", RATE_LIMIT_STORE=f"valkey://127.0.0.1:{port}")
    reasons = [refused(running.stub.VerifyEmail, verification("x")).reason for _ in range(2)]
    assert reasons == ["TOKEN_INVALID", "RATE_LIMITED"]


def test_health_and_reflection_are_not_counted(serve: Serve) -> None:
    running = serve(RATE_LIMIT="1/60s")
    health = health_pb2_grpc.HealthStub(running.channel)
    for service in ("", "identity.v1.IdentityService") * 3:
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    (listed,) = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    assert "identity.v1.IdentityService" in {
        service.name for service in listed.list_services_response.service
    }
    assert refused(running.stub.VerifyEmail, verification("x")).reason == "TOKEN_INVALID"


def test_reflection_can_be_switched_off(serve: Serve) -> None:
    running = serve(REFLECTION="off")
    reflection = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    answers = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    assert answers.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_knows_the_details_of_an_error(serve: Serve) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(serve().channel)
    (found,) = reflection.ServerReflectionInfo(
        iter(
            [reflection_pb2.ServerReflectionRequest(file_containing_symbol="google.rpc.BadRequest")]
        )
    )
    assert found.file_descriptor_response.file_descriptor_proto
