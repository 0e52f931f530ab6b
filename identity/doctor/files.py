"""Who else can read a file that holds a secret (docs/decisions/0014)."""

import os
from pathlib import Path
from typing import Final

from identity.doctor.finding import Finding, failed, passed, warned

_GROUP: Final = 0o060
_OTHERS: Final = 0o006
# Where Docker, Podman and Swarm put secrets, with mode 0444 unless told otherwise.
_CONTAINER_SECRETS: Final = Path("/run/secrets")
# Kubernetes swaps all files of a mounted secret at once, by this link beside them.
_KUBERNETES_LINK: Final = "..data"


def secret_file(name: str, path: Path) -> Finding:
    """`name` is that of the finding."""
    try:
        status = path.stat()
        with path.open("rb"):
            pass
    except OSError as error:
        mend = "make the file, readable by the service's user"
        return failed(name, f"{path}: {error.strerror}", mend)
    mode = status.st_mode & 0o7777
    told = f"{path} has mode {mode:04o}"
    mounted = _is_mounted_secret(path)
    if mode & _OTHERS and not mounted:
        return failed(name, f"{told}: every user can get at it", f"chmod 0600 {path}")
    if mode & _OTHERS:
        # Every user of the container, which is hardly more than the service's own.
        return warned(name, f"{told}: every user of the container can read it", _mount_mend(path))
    # Another's file that our group may read is meant so: a service that can't change its own
    # keys. So are those that a fsGroup makes.
    if mode & _GROUP and status.st_uid == os.geteuid() and not mounted:
        return warned(name, f"{told}: its group can get at it", f"chmod 0600 {path}")
    return passed(name, told)


def _is_mounted_secret(path: Path) -> bool:
    absolute = path.absolute()
    in_kubernetes = (absolute.parent / _KUBERNETES_LINK).is_symlink()
    return in_kubernetes or absolute.is_relative_to(_CONTAINER_SECRETS)


def _mount_mend(path: Path) -> str:
    if (path.absolute().parent / _KUBERNETES_LINK).is_symlink():
        return "set the volume's defaultMode to 0400, and fsGroup to the group of the service"
    return "give the secret the mode 0400 and the uid of the service's user"
