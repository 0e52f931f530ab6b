"""gRPC's own lines become ours; what a caller could put into them does not."""

import json
import logging

import pytest
import structlog

from identity import logs
from identity.grpc_log import HANDSHAKE_REASONS, LINES_A_SECOND, CoreLog
from identity.meters import Meters
from tests.fakes import FakeClock

BEGINNING = b"I1124 23:19:18.803391   13467 ssl_transport_security.cc:2563] "
FAILED = BEGINNING + b"Handshake failed with error SSL_ERROR_SSL: error:100000c0:SSL routines:"


class Counting(Meters):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def handshake_refused(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> "Lines":
    return Lines(capfd)


class Lines:
    """A CoreLog, what it counted, wrote, and let through."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self.clock = FakeClock()
        self.meters = Counting()
        self.rest: list[bytes] = []
        self._core_log = CoreLog(self.meters, self.rest.append, self.clock.monotonic)

    def take(self, *lines: bytes) -> list[dict[str, object]]:
        """What becomes of the core's lines."""
        handlers = logging.getLogger().handlers
        logs.configure(logs.LogFormat.JSON, logs.LogLevel.INFO)
        for line in lines:
            self._core_log.line(line)
        structlog.reset_defaults()
        logging.getLogger().handlers = handlers
        return self._written()

    def _written(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._captured.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (b"PEER_DID_NOT_RETURN_A_CERTIFICATE: Invalid", "no_certificate"),
        (b"CERTIFICATE_VERIFY_FAILED: certificate has expired", "certificate_expired"),
        (b"CERTIFICATE_VERIFY_FAILED: zzz", "certificate_refused"),
        (b"WRONG_VERSION_NUMBER: Invalid", "not_tls"),
        (b"UNSUPPORTED_PROTOCOL: Invalid", "tls_version"),
        (b"SOMETHING_NEW: zzz", "other"),
    ],
)
def test_a_refused_handshake_is_one_line_of_a_fixed_form(
    lines: Lines, told: bytes, reason: str
) -> None:
    (line,) = lines.take(FAILED + b"OPENSSL_internal:" + told + b"\n")
    assert (line["event"], line["reason"]) == ("tls_handshake_refused", reason)
    assert lines.meters.reasons == [reason]
    assert reason in HANDSHAKE_REASONS
    assert lines.rest == []


def test_other_lines_of_the_core_are_left_out_and_those_of_others_are_not(lines: Lines) -> None:
    cores = BEGINNING + b"ipv4:192.0.2.7 said zzz\n"
    assert lines.take(cores, b"Traceback (most recent call last):\n") == []
    assert lines.rest == [b"Traceback (most recent call last):\n"]


def test_a_flood_of_handshakes_is_counted_and_not_written(lines: Lines) -> None:
    refused = FAILED + b"OPENSSL_internal:WRONG_VERSION_NUMBER: x\n"
    assert len(lines.take(*[refused] * 1000)) == LINES_A_SECOND
    lines.clock.advance(seconds=1)
    (line,) = lines.take(refused)
    assert line["left_out"] == 1000 - LINES_A_SECOND
    assert len(lines.meters.reasons) == 1001
