"""Metrics for Prometheus: what they are called, and how they are counted over several processes.

Every label is out of a closed set: RPCs, status codes, reasons of errors.py, results. Nothing that
a caller sent is ever a name or a value of one.

Several worker processes count in files of a shared directory (prometheus-client's multi-process
mode), each in those of its slot. A worker that follows another in its slot goes on with its
counters, so that none goes back and the files stay few.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    multiprocess,
    values,
)

from identity.grpc_log import HANDSHAKE_REASONS
from identity.meters import DeliveryResult, Meters

_CALL_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_WAIT_SECONDS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_VERIFIED_SECONDS: Final = (10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600, 72 * 3600)

_RESULTS: Final[Mapping[str, str]] = {"Register": "registered", "VerifyEmail": "verified"}


def registry_of_this_process() -> CollectorRegistry:
    """Where a process that serves alone keeps its metrics, those of the process itself included."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def registry_of_all(directory: Path) -> CollectorRegistry:
    """What all processes have counted in the directory."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return registry


def count_in_slot(slot: int) -> None:
    """Lets this process count in the files of its slot. Before the first metric is made."""
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def slot_ended(slot: int, directory: Path) -> None:
    """Forgets what only a running process has, such as how many connections it uses."""
    multiprocess.mark_process_dead(slot, str(directory))  # type: ignore[no-untyped-call]


class PrometheusMeters(Meters):
    """Counts what it is told."""

    def __init__(self, registry: CollectorRegistry, methods: Iterable[str]) -> None:
        """`methods` are all RPCs, each as "/identity.v1.IdentityService/Register"."""
        self._registry = registry
        self._calls = {method: _Calls(labels) for method, labels in _labelled(methods).items()}
        self._make_metrics_of_calls(registry)
        self._make_metrics_of_the_domain(registry)
        self._make_gauges(registry)

    def _make_metrics_of_calls(self, registry: CollectorRegistry) -> None:
        labels = ("grpc_type", "grpc_service", "grpc_method")
        self._started = Counter(
            "grpc_server_started", "Calls that have begun.", labels, registry=registry
        )
        self._handled = Counter(
            "grpc_server_handled",
            "Calls that have ended, by status code.",
            (*labels, "grpc_code"),
            registry=registry,
        )
        self._handling = Histogram(
            "grpc_server_handling_seconds",
            "Time from the call's headers to its reply.",
            labels,
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        self._defects = Counter(
            "identity_unforeseen",
            "Calls that met a defect of the service.",
            ("grpc_method",),
            registry=registry,
        )
        self._refusals = Counter(
            "identity_rate_limit_refusals",
            "Calls refused by a rate limit.",
            ("grpc_method",),
            registry=registry,
        )
        for calls in self._calls.values():
            calls.started = self._started.labels(*calls.labels)
            calls.seconds = self._handling.labels(*calls.labels)

    def _make_metrics_of_the_domain(self, registry: CollectorRegistry) -> None:
        self._results = {
            "Register": Counter(
                "identity_registrations",
                "Registers by result: registered, or the reason of the refusal.",
                ("result",),
                registry=registry,
            ),
            "VerifyEmail": Counter(
                "identity_verifications",
                "VerifyEmails by result: verified, or the reason of the refusal.",
                ("result",),
                registry=registry,
            ),
        }
        self._time_to_verified = Histogram(
            "identity_time_to_verified_seconds",
            "Time from Register to VerifyEmail, of those who were verified.",
            buckets=_VERIFIED_SECONDS,
            registry=registry,
        )
        deliveries = Counter(
            "identity_deliveries",
            "Tries to send a mail, by result.",
            ("result",),
            registry=registry,
        )
        self._deliveries = {result: deliveries.labels(result) for result in DeliveryResult}
        self._hash_wait = Histogram(
            "identity_hashing_wait_seconds",
            "Time that admitted hashes waited for a thread.",
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        self._fallbacks = Counter(
            "identity_rate_limit_fallbacks",
            "How often local windows took over because the shared ones were out of reach.",
            registry=registry,
        )
        handshakes = Counter(
            "identity_tls_handshakes_refused",
            "Connections that ended in their TLS handshake.",
            ("reason",),
            registry=registry,
        )
        self._handshakes = {reason: handshakes.labels(reason) for reason in HANDSHAKE_REASONS}

    def _make_gauges(self, registry: CollectorRegistry) -> None:
        self._hash_queue = Gauge(
            "identity_hashing_queue",
            "Hashes that wait for a thread.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._connections = Gauge(
            "identity_database_connections_in_use",
            "Connections of the pool that are in use.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._store_reachable = Gauge(
            "identity_rate_limit_store_reachable",
            "1 while the windows of the store count, 0 while local ones do.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self._store_reachable.set(1)
        Gauge(
            "identity_build_info",
            "Always 1; the label is the release.",
            ("version",),
            multiprocess_mode="livemax",
            registry=registry,
        ).labels(version("identity-service")).set(1)

    def call_started(self, method: str) -> None:
        self._calls[method].started.inc()

    def call_handled(self, method: str, code: str, reason: str, seconds: float) -> None:
        calls = self._calls[method]
        calls.seconds.observe(seconds)
        if code not in calls.handled:
            calls.handled[code] = self._handled.labels(*calls.labels, code)
        calls.handled[code].inc()
        rpc = calls.labels[-1]
        if rpc in self._results:
            result = _RESULTS[rpc] if code == "OK" else reason.lower()
            self._results[rpc].labels(result).inc()
        if reason == "INTERNAL":
            self._defects.labels(rpc).inc()
        if reason == "RATE_LIMITED":
            self._refusals.labels(rpc).inc()

    def verified(self, since_registration: timedelta) -> None:
        self._time_to_verified.observe(since_registration.total_seconds())

    def delivery_tried(self, result: DeliveryResult) -> None:
        self._deliveries[result].inc()

    def hash_waits(self) -> None:
        self._hash_queue.inc()

    def hash_begins(self, waited: float) -> None:
        self._hash_queue.dec()
        self._hash_wait.observe(waited)

    def hash_given_up(self) -> None:
        self._hash_queue.dec()

    def limit_store_changed(self, *, is_reachable: bool) -> None:
        self._store_reachable.set(int(is_reachable))
        if not is_reachable:
            self._fallbacks.inc()

    def handshake_refused(self, reason: str) -> None:
        self._handshakes[reason].inc()

    def connection_taken(self) -> None:
        self._connections.inc()

    def connection_returned(self) -> None:
        self._connections.dec()


class _Calls:
    """The metrics of one RPC; looking them up by their labels would cost more than counting."""

    started: Counter
    seconds: Histogram

    def __init__(self, labels: tuple[str, str, str]) -> None:
        self.labels = labels
        self.handled: dict[str, Counter] = {}  # by status code


def _labelled(methods: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    split = ((method, *method[1:].split("/")) for method in methods)
    return {method: ("unary", service, rpc) for method, service, rpc in split}
