"""What gRPC's core writes to stderr, in the form of our own lines.

The core knows what no interceptor sees: connections that were refused in their TLS handshake. It
tells in lines of its own on file descriptor 2, at a level that is otherwise off. They are taken
from there, and become lines of ours of a fixed form; what anybody else writes goes through.
"""

import faulthandler
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from identity.meters import Meters

# How the core begins a line: level, month, day, time, thread.
_CORES: Final = re.compile(rb"[IWE]\d{4} [\d:.]+ +\d+ ")
_HANDSHAKE: Final = re.compile(rb"Handshake failed with error .*?:OPENSSL_internal:([A-Z0-9_]+)")
_VERIFY: Final = re.compile(rb"CERTIFICATE_VERIFY_FAILED: ([a-z -]+)")

# BoringSSL's reasons, as far as they are told apart. The others are one.
_REASONS: Final = {
    b"PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    b"CERTIFICATE_VERIFY_FAILED": "certificate_refused",
    b"WRONG_VERSION_NUMBER": "not_tls",
    b"HTTP_REQUEST": "not_tls",
    b"HTTPS_PROXY_REQUEST": "not_tls",
    b"UNSUPPORTED_PROTOCOL": "tls_version",
    b"NO_SHARED_CIPHER": "no_shared_cipher",
    b"SSLV3_ALERT_BAD_CERTIFICATE": "ours_refused",
    b"TLSV1_ALERT_UNKNOWN_CA": "ours_refused",
    b"SSLV3_ALERT_CERTIFICATE_UNKNOWN": "ours_refused",
    b"SSLV3_ALERT_CERTIFICATE_EXPIRED": "ours_refused",
}
_VERIFY_REASONS: Final = {
    b"certificate has expired": "certificate_expired",
    b"certificate is not yet valid": "certificate_not_yet_valid",
    b"unable to get local issuer certificate": "certificate_foreign",
    b"self signed certificate": "certificate_foreign",
    b"self signed certificate in certificate chain": "certificate_foreign",
    b"unable to verify the first certificate": "certificate_foreign",
}
OTHER: Final = "other"
HANDSHAKE_REASONS: Final = frozenset({*_REASONS.values(), *_VERIFY_REASONS.values(), OTHER})

# Anybody who reaches the port makes such lines: so many a second are written, the rest is counted.
LINES_A_SECOND: Final = 10
LONGEST_LINE: Final = 64 * 1024  # bytes

_log = structlog.get_logger()


class CoreLog:
    """Turns the core's lines into ours."""

    def __init__(
        self,
        meters: Meters,
        rest: Callable[[bytes], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rest` takes the lines that are not the core's."""
        self._meters = meters
        self._rest = rest
        self._clock = clock
        self._second = 0
        self._written = 0
        self._left_out = 0

    def line(self, line: bytes) -> None:
        """Takes one line."""
        if not _CORES.match(line):
            self._rest(line)
            return
        found = _HANDSHAKE.search(line)
        if found:
            reason = _REASONS.get(found[1], OTHER)
            verify = _VERIFY.search(line)
            if verify:
                reason = _VERIFY_REASONS.get(verify[1].strip(), reason)
            self._meters.handshake_refused(reason)
            self._tell(reason)

    def _tell(self, reason: str) -> None:
        second = int(self._clock())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written >= LINES_A_SECOND:
            self._left_out += 1
            return
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        _log.warning("tls_handshake_refused", reason=reason, left_out=left_out)


def follow(meters: Meters, lines: Callable[[bytes], object]) -> None:
    """Takes over file descriptor 2, for good. `lines` takes what is not the core's; it must not
    wait, or the core would wait for us."""
    ours = os.dup(2)
    end, pipe = os.pipe()
    os.dup2(pipe, 2)
    os.close(pipe)
    core_log = CoreLog(meters, lines)

    def read() -> None:
        with os.fdopen(end, "rb") as lines:
            while line := lines.readline(LONGEST_LINE):
                with suppress(Exception):  # one line must not end all others
                    core_log.line(line)

    threading.Thread(target=read, name="grpc-log", daemon=True).start()
    # Python's own last words need no detour.
    sys.stderr = os.fdopen(ours, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    # And neither do those of a crash, which would stay in the pipe.
    faulthandler.enable(file=ours)
