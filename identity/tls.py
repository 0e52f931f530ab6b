"""TLS for the server: certificates that are taken up anew when their files change.

gRPC asks for the certificates before every handshake, so that connections that stand are left
alone. TLS 1.2 is the least that its core speaks.
"""

import ssl
import threading
from pathlib import Path
from typing import Final, NamedTuple

import grpc
import structlog

from identity.config import ConfigurationError, Settings
from identity.tracebacks import kind_of

_log = structlog.get_logger()

# A file as it was looked at: changed if any of these did.
_Look = tuple[tuple[int, int, int], ...]


class UnusableCertificates(Exception):
    """The files do not make a server's certificates. `setting` names the one that is wrong."""

    def __init__(self, setting: str, why: str) -> None:
        super().__init__(why)
        self.setting: Final = setting


class CertificateFiles(NamedTuple):
    """A server's chain and key, and the authorities that vouch for its clients, all PEM."""

    chain: Path
    key: Path
    client_authorities: Path | None

    def look(self) -> _Look:
        """Which version of the files is there. Raises OSError."""
        found = (path.stat() for path in self if path is not None)
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Raises UnusableCertificates."""
        chain = _read("IDENTITY_TLS_CERT", self.chain)
        key = _read("IDENTITY_TLS_KEY", self.key)
        self._check()
        authorities = self.client_authorities
        return grpc.ssl_server_certificate_configuration(
            [(key, chain)],
            None if authorities is None else _read("IDENTITY_TLS_CLIENT_CA", authorities),
        )

    def _check(self) -> None:
        # gRPC would say nothing, and refuse every handshake.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # A password: OpenSSL would else ask for it on the terminal, and wait.
            context.load_cert_chain(self.chain, self.key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError):
            why = "not a certificate in PEM and its key, without a password"
            raise UnusableCertificates("IDENTITY_TLS_CERT", why) from None
        if self.client_authorities is None:
            return
        try:
            context.load_verify_locations(self.client_authorities)
        except (ssl.SSLError, OSError):
            raise UnusableCertificates(
                "IDENTITY_TLS_CLIENT_CA", "not certificates in PEM"
            ) from None


class _Renewal:
    """Gives gRPC the certificates when they have changed, and None while they have not."""

    def __init__(self, files: CertificateFiles, known: _Look) -> None:
        self._files = files
        self._known = known
        self._is_missing = False
        self._lock = threading.Lock()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            try:
                found = self._files.look()
                if found == self._known:
                    return None
                renewed = self._files.read()
                if self._files.look() != found:  # being written: the next handshake looks again
                    return None
            except UnusableCertificates as error:
                self._complain(error)
                self._known = found  # until they change again: once, not with each handshake
                return None
            except OSError as error:  # gone, or being replaced: the next handshake looks again
                if not self._is_missing:
                    self._complain(error)
                self._is_missing = True
                return None
            self._known, self._is_missing = found, False
        _log.info("certificates_renewed")
        return renewed

    def _complain(self, error: Exception) -> None:
        setting = getattr(error, "setting", "")
        _log.error("certificates_unusable", setting=setting, error=kind_of(error))


def certificate_files(settings: Settings) -> CertificateFiles | None:
    """The files that the settings name; None for plaintext."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Certificates for the server, renewed by themselves. With authorities for clients, every
    client must show a certificate of theirs.

    Raises ConfigurationError.
    """
    try:
        known = files.look()
        first = files.read()
    except UnusableCertificates as error:
        raise ConfigurationError(f"{error.setting}: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"IDENTITY_TLS_CERT: cannot be read: {error.strerror}") from None
    return grpc.dynamic_ssl_server_credentials(
        first,
        _Renewal(files, known),  # type: ignore[arg-type]  # None is what it says: nothing new
        require_client_authentication=files.client_authorities is not None,
    )


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableCertificates(setting, f"cannot be read: {error.strerror}") from None
