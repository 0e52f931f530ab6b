"""What Prometheus is told, and what it is never told."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from identity import errors, metrics, policy
from identity.grpc_log import HANDSHAKE_REASONS
from identity.meters import DeliveryResult
from identity.monitoring import DIRECTORY_VARIABLE
from scripts.metrics import exposed, unknown

REGISTER = "/identity.v1.IdentityService/Register"
REQUEST_REASONS = ("REQUEST_MISSING", "REQUEST_NOT_RECEIVED", "REQUEST_UNDECODABLE")
VERIFY = "/identity.v1.IdentityService/VerifyEmail"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def meters(registry: CollectorRegistry) -> metrics.PrometheusMeters:
    return metrics.PrometheusMeters(registry, policy.RULES)


def labels(method: str, **more: str) -> dict[str, str]:
    service, _, rpc = method[1:].partition("/")
    return {"grpc_type": "unary", "grpc_service": service, "grpc_method": rpc, **more}


def test_calls_are_counted_under_the_standard_names(
    registry: CollectorRegistry, meters: metrics.PrometheusMeters
) -> None:
    for code, reason in (("OK", ""), ("OK", ""), ("INVALID_ARGUMENT", "TOKEN_USED")):
        meters.call_started(VERIFY)
        meters.call_handled(VERIFY, code, reason, 0.002)
    meters.call_started(REGISTER)
    value = registry.get_sample_value
    assert value("grpc_server_started_total", labels(VERIFY)) == 3
    assert value("grpc_server_started_total", labels(REGISTER)) == 1
    assert value("grpc_server_handled_total", labels(VERIFY, grpc_code="OK")) == 2
    assert value("grpc_server_handled_total", labels(VERIFY, grpc_code="INVALID_ARGUMENT")) == 1
    assert value("grpc_server_handling_seconds_count", labels(VERIFY)) == 3
    assert value("identity_verifications_total", {"result": "verified"}) == 2
    assert value("identity_verifications_total", {"result": "token_used"}) == 1


def test_every_rpc_has_its_counters_before_its_first_call(
    registry: CollectorRegistry, meters: metrics.PrometheusMeters
) -> None:
    assert meters
    for method in policy.RULES:
        assert registry.get_sample_value("grpc_server_started_total", labels(method)) == 0


def test_registrations_are_counted_by_result(
    registry: CollectorRegistry, meters: metrics.PrometheusMeters
) -> None:
    meters.call_handled(REGISTER, "OK", "", 0.3)
    meters.call_handled(REGISTER, "ALREADY_EXISTS", "EMAIL_TAKEN", 0.3)
    meters.call_handled(REGISTER, "RESOURCE_EXHAUSTED", "RATE_LIMITED", 0.001)
    value = registry.get_sample_value
    for result in ("registered", "email_taken", "rate_limited"):
        assert value("identity_registrations_total", {"result": result}) == 1
    assert value("identity_rate_limit_refusals_total", {"grpc_method": "Register"}) == 1


def test_what_happens_inside_is_counted(
    registry: CollectorRegistry, meters: metrics.PrometheusMeters
) -> None:
    meters.verified(timedelta(minutes=2))
    meters.delivery_tried(DeliveryResult.DELAYED)
    meters.hash_waits()
    meters.hash_waits()
    meters.hash_waits()
    meters.hash_begins(0.2)
    meters.hash_given_up()
    meters.connection_taken()
    meters.limit_store_changed(is_reachable=False)
    meters.handshake_refused("not_tls")
    value = registry.get_sample_value
    assert value("identity_time_to_verified_seconds_sum") == 120
    assert value("identity_deliveries_total", {"result": "delayed"}) == 1
    assert value("identity_deliveries_total", {"result": "dead"}) == 0
    assert value("identity_hashing_queue") == 1
    assert value("identity_hashing_wait_seconds_count") == 1
    assert value("identity_database_connections_in_use") == 1
    assert value("identity_rate_limit_store_reachable") == 0
    assert value("identity_rate_limit_fallbacks_total") == 1
    assert value("identity_tls_handshakes_refused_total", {"reason": "not_tls"}) == 1
    meters.limit_store_changed(is_reachable=True)
    assert value("identity_rate_limit_store_reachable") == 1
    assert value("identity_rate_limit_fallbacks_total") == 1


def test_a_request_that_could_not_be_read_is_no_success_and_no_defect(
    registry: CollectorRegistry, meters: metrics.PrometheusMeters
) -> None:
    meters.call_handled(VERIFY, "INTERNAL", "REQUEST_UNDECODABLE", 0)
    meters.call_handled(VERIFY, "INTERNAL", "INTERNAL", 0)
    value = registry.get_sample_value
    assert value("identity_verifications_total", {"result": "verified"}) is None
    assert value("identity_verifications_total", {"result": "request_undecodable"}) == 1
    assert value("identity_unforeseen_total", {"grpc_method": "VerifyEmail"}) == 1


def test_every_label_is_out_of_a_closed_set(
    registry: CollectorRegistry, meters: metrics.PrometheusMeters
) -> None:
    reasons = sorted({*_reasons(errors.IdentityError), *REQUEST_REASONS})
    for method in policy.RULES:
        meters.call_handled(method, "OK", "", 0)
        for reason in reasons:
            meters.call_handled(method, "UNKNOWN", reason, 0)
    services = {method[1:].partition("/")[0] for method in policy.RULES}
    rpcs = {method.rpartition("/")[2] for method in policy.RULES}
    results = {reason.lower() for reason in reasons} | {"registered", "verified", *DeliveryResult}
    allowed = {
        "grpc_type": {"unary"},
        "grpc_service": services,
        "grpc_method": rpcs,
        "grpc_code": {"OK", "UNKNOWN"},
        "result": results,
        "reason": HANDSHAKE_REASONS,
    }
    for metric in registry.collect():
        for sample in metric.samples:
            for name, value in sample.labels.items():
                if name not in {"le", "version"}:
                    assert value in allowed[name]


def _reasons(kind: type[errors.IdentityError]) -> Iterator[str]:
    if "reason" in vars(kind):
        yield kind.reason
    for each in kind.__subclasses__():
        yield from _reasons(each)


COUNT = """
import sys
from prometheus_client import CollectorRegistry
from identity import metrics, policy
slot, calls = map(int, sys.argv[1:])
metrics.count_in_slot(slot)
meters = metrics.PrometheusMeters(CollectorRegistry(), policy.RULES)
for _ in range(calls):
    meters.call_handled("/identity.v1.IdentityService/VerifyEmail", "OK", "", 0.001)
    meters.connection_taken()
"""


def count(directory: Path, slot: int, calls: int) -> None:
    """A worker process that answers so many calls, and ends."""
    environment = os.environ | {DIRECTORY_VARIABLE: str(directory)}
    command = [sys.executable, "-c", COUNT, str(slot), str(calls)]
    subprocess.run(command, env=environment, check=True, timeout=60)


def test_workers_count_together_and_none_goes_back(tmp_path: Path) -> None:
    count(tmp_path, 0, 3)
    count(tmp_path, 1, 4)
    value = metrics.registry_of_all(tmp_path).get_sample_value
    handled = ("identity_verifications_total", {"result": "verified"})
    in_use = ("identity_database_connections_in_use", {})
    assert (value(*handled), value(*in_use)) == (7, 7)
    files = {path.name for path in tmp_path.iterdir()}
    metrics.slot_ended(0, tmp_path)
    assert (value(*handled), value(*in_use)) == (7, 4)
    count(tmp_path, 0, 2)  # the one that follows in its slot
    assert (value(*handled), value(*in_use)) == (9, 6)
    assert {path.name for path in tmp_path.iterdir()} == files


def test_a_name_that_nobody_exposes_is_found() -> None:
    known = exposed()
    assert {
        "grpc_server_handling_seconds_bucket",
        "identity_registrations_total",
        "identity_outbox_oldest_seconds",
        "identity_workers_serving",
    } <= known
    text = "identity_registrations_total\nidentity_pb2 identity_registration_total x"
    assert list(unknown([("a.md", text)], known)) == [
        "a.md:2: identity_registration_total is not exposed"
    ]
