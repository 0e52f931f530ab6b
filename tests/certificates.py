"""Certificates as a platform's own authority would issue them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST: Final = "127.0.0.1"


def uri(name: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(name)


def dns(name: str) -> x509.GeneralName:
    return x509.DNSName(name)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes both as files; each is whole at every moment."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, content in zip(paths, (self.pem, self.key_pem), strict=True):
            aside = path.with_suffix(".new")
            aside.touch(0o600)
            aside.write_bytes(content)
            aside.replace(path)
        return paths


def self_signed(
    name: str,
    *,
    begins: timedelta = timedelta(days=-1),
    ends: timedelta = timedelta(days=30),
    is_authority: bool = True,
    usage: x509.ObjectIdentifier | None = None,
) -> Issued:
    """A certificate for that DNS name; `begins` and `ends` are counted from now."""
    extensions: list[x509.ExtensionType] = [] if usage is None else [x509.ExtendedKeyUsage([usage])]
    made = _issue(name, [dns(name)], None, begins, ends, is_authority, extensions)
    return Issued(*made)


@dataclass(frozen=True)
class Authority(Issued):
    """Issues certificates."""

    @classmethod
    def create(cls, name: str = "authority") -> Self:
        return cls(*_issue(name))

    def issue(
        self,
        common_name: str,
        *names: x509.GeneralName,
        begins: timedelta = timedelta(days=-1),
        ends: timedelta = timedelta(days=30),
    ) -> Issued:
        """`begins` and `ends` are counted from now."""
        return Issued(*_issue(common_name, names, self, begins, ends, is_authority=False))

    def server(self) -> Issued:
        """A certificate for a server on this machine."""
        return self.issue("server", x509.IPAddress(ip_address(HOST)), dns("localhost"))


def _issue(
    common_name: str,
    names: Sequence[x509.GeneralName] = (),
    issuer: Issued | None = None,
    begins: timedelta = timedelta(days=-1),
    ends: timedelta = timedelta(days=30),
    is_authority: bool = True,
    extensions: Sequence[x509.ExtensionType] = (),
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = issuer.private if issuer else private
    return builder.sign(signer, hashes.SHA256()), private
