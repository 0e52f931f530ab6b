"""Alerts and the dashboard: what they ask for is what the service exposes."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta

import grpc
import promql_parser
import pytest
from prometheus_client import CollectorRegistry

from identity import errors, policy
from identity.collectors import Workers, WorkersCollector, outbox_metrics, readable
from identity.grpc_log import HANDSHAKE_REASONS
from identity.mail.depth import Depth
from identity.meters import DeliveryResult
from identity.metrics import PrometheusMeters
from tests.deploy.files import DEPLOY, ROOT, documents

Series = tuple[str, dict[str, str]]

(RULES,) = documents((DEPLOY / "prometheus" / "alerts.yaml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
DASHBOARD = json.loads((DEPLOY / "grafana" / "identity.json").read_text())
QUERIES = [
    target["expr"].replace("$__rate_interval", "5m")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]

# Those that Prometheus makes itself.
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"instance", "job"}


def reasons(base: type[errors.IdentityError]) -> Iterator[str]:
    for error in base.__subclasses__():
        yield getattr(error, "reason", "")
        yield from reasons(error)


@pytest.fixture(scope="module")
def series() -> list[Series]:
    """Everything that a service exposes to which everything has happened once."""
    registry = CollectorRegistry()
    meters = PrometheusMeters(registry, policy.RULES)
    for method in policy.RULES:
        for code in grpc.StatusCode:
            for reason in {"", *reasons(errors.IdentityError)}:
                meters.call_handled(method, code.name, reason, 0.001)
    for reason in HANDSHAKE_REASONS:
        meters.handshake_refused(reason)
    for result in DeliveryResult:
        meters.delivery_tried(result)
    registry.register(WorkersCollector(lambda: Workers(0, 0, 0)))
    outbox = outbox_metrics(Depth(0, 0, timedelta(), is_paused=False))
    found = (*registry.collect(), *outbox, readable(1))
    return [(each.name, each.labels) for metric in found for each in metric.samples]


def selectors(query: str) -> list[promql_parser.VectorSelector]:
    """What the query asks for. Raises ValueError where it is none."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def matches(matcher: promql_parser.Matcher, labels: dict[str, str]) -> bool:
    if matcher.name in LABELS_OF_PROMETHEUS:
        return True
    if matcher.name not in labels:
        return False
    value = labels[matcher.name]
    is_pattern = matcher.op in (promql_parser.MatchOp.Re, promql_parser.MatchOp.NotRe)
    is_wanted = matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re)
    is_same = bool(re.fullmatch(matcher.value, value)) if is_pattern else matcher.value == value
    return is_same == is_wanted


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in ALERTS.values()), *QUERIES])
def test_every_query_finds_something(series: list[Series], query: str) -> None:
    asked = selectors(query)
    assert asked
    for selector in asked:
        if selector.name in OF_PROMETHEUS:
            continue
        assert any(
            name == selector.name
            and all(matches(matcher, labels) for matcher in selector.matchers.matchers)
            for name, labels in series
        ), selector


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_is_wrong_and_whom_it_wakes(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"].endswith((".", "}}."))


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_its_lines_for_the_operator(alert: str) -> None:
    assert f"`{alert}`" in (ROOT / "docs" / "operations.md").read_text()


def test_the_alerts_go_by_the_job_that_scrapes() -> None:
    (scrape,) = documents((DEPLOY / "prometheus" / "scrape.yaml").read_text())
    jobs = {each["job_name"] for each in scrape["scrape_configs"]}
    asked = {
        matcher.value
        for rule in ALERTS.values()
        for selector in selectors(rule["expr"])
        for matcher in selector.matchers.matchers
        if matcher.name == "job"
    }
    assert asked == jobs


def test_no_two_panels_lie_on_each_other() -> None:
    places = [tuple(panel["gridPos"][each] for each in "xy") for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
