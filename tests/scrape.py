"""What the platform fetches over HTTP."""

import http.client
from contextlib import closing
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from identity.values import Endpoint

PATIENCE = 20  # seconds

Sample = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Answer:
    status: int
    body: str


def fetch(endpoint: Endpoint, path: str, method: str = "GET") -> Answer:
    with closing(http.client.HTTPConnection(*endpoint, timeout=PATIENCE)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())


class Scrape:
    """All samples of one look at /metrics."""

    def __init__(self, endpoint: Endpoint) -> None:
        answer = fetch(endpoint, "/metrics")
        assert answer.status == 200
        self.text = answer.body
        families = text_string_to_metric_families(answer.body)
        self.samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels; it must have some."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, name
        return sum(found)
