"""Certificates that live as long as a test wants."""

from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.certificates import self_signed


class Issued(NamedTuple):
    """A certificate and its key, in PEM files; the key has mode 0600."""

    cert: Path
    key: Path


def issue(
    directory: Path,
    name: str,
    *,
    begins: float = -1,
    ends: float = 90,
    is_authority: bool = False,
    for_clients: bool = False,
) -> Issued:
    """A certificate signed by itself; `begins` and `ends` in days from now."""
    made = self_signed(
        name,
        begins=timedelta(days=begins),
        ends=timedelta(days=ends),
        is_authority=is_authority,
        usage=ExtendedKeyUsageOID.CLIENT_AUTH if for_clients else ExtendedKeyUsageOID.SERVER_AUTH,
    )
    return Issued(*made.write(directory, name))
