"""A service that demands certificates, and callers that show them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.certificates import Authority, Issued
from tests.rpc.conftest import Running, Serve

ListCallers = Callable[[str], Serve]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.fixture
def secured(serve: Serve, authority: Authority, tmp_path: Path) -> Serve:
    """Starts a service that demands certificates of the authority."""
    chain, key = authority.server().write(tmp_path, "server")
    ca, _ = authority.write(tmp_path, "authority")
    settings = {"TLS_CERT": str(chain), "TLS_KEY": str(key), "TLS_CLIENT_CA": str(ca)}
    return lambda **more: serve(**settings, **more)


@pytest.fixture
def list_callers(secured: Serve, tmp_path: Path) -> ListCallers:
    """Starts the same, with the callers that a file names."""

    def begin(written: str) -> Serve:
        path = tmp_path / "callers.toml"
        path.write_text(written)
        return lambda **more: secured(CALLERS_FILE=str(path), **more)

    return begin


@contextmanager
def channel(running: Running, authority: Authority, shown: Issued) -> Iterator[grpc.Channel]:
    """A channel of the caller that shows this certificate."""
    credentials = grpc.ssl_channel_credentials(authority.pem, shown.key_pem, shown.pem)
    # Channels share connections, whatever certificates they show, unless told otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(str(running.service.endpoint), credentials, options) as opened:
        yield opened
