"""The program, run on the test's database; a certificate; windows in Valkey."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL
from structlog.testing import capture_logs
from structlog.typing import EventDict

from identity import cli
from identity.ratelimit.valkey import ValkeyWindows
from identity.values import ValkeyServer
from tests.certificates import self_signed
from tests.program import Answer, Command, use
from tests.valkey import PATIENCE, Valkey
from tests.windows import Open, RecordedMeters


@pytest.fixture
def command(
    database_url: URL, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `identity outbox` on the test's database. No secret key is set."""
    use(monkeypatch, database_url)

    def run(*arguments: str) -> Answer:
        capsys.readouterr()  # what the test's own deliverers log
        code = cli.main(["outbox", *arguments])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself, and its key."""
    return self_signed("localhost").write(tmp_path, "server")


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """What a client that trusts the certificate verifies with."""
    return ssl.create_default_context(cafile=certificate[0])


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, to be harmed."""
    with Valkey(tmp_path) as started:
        yield started


@pytest.fixture
def meters() -> RecordedMeters:
    return RecordedMeters()


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """What is logged. Read when nobody writes any more, or after a change was met."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def open_windows(meters: RecordedMeters) -> Iterator[Open]:
    """Windows on a server, started; keyword arguments are those of ValkeyWindows."""
    opened: list[ValkeyWindows] = []

    def begin(address: ValkeyServer, **options: Any) -> ValkeyWindows:  # noqa: ANN401
        # Looks that follow one another quickly, and more patience than a busy machine tries.
        options = {"patience": PATIENCE, "interval": 0.05} | options
        opened.append(ValkeyWindows(address, options.pop("meters", meters), **options))
        opened[-1].start()
        return opened[-1]

    yield begin
    for windows in opened:
        windows.close()
