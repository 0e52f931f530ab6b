"""What `identity doctor` takes on the command line. Imports nothing of the service."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse gives it no name


def add_doctor(commands: "Commands") -> None:
    """Adds `doctor`."""
    doctor = commands.add_parser(
        "doctor",
        help="say what `serve` would lack, and how to mend it",
        description="Looks at all that `serve` would need with the settings of the environment: "
        "database, keys, mail, certificates, rate-limit store, port, limits of the machine. "
        "Changes nothing, sends no mail and shows no secret; takes 10 seconds at most. Run it as "
        "the service's user.",
        epilog="Exit codes: 0 nothing failed (warnings may be there), 1 at least one check "
        "failed, 2 misused or unusable settings.",
    )
    doctor.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document: the checks with name, result (pass, warn, fail), found and "
        "mend (null for none), and the worst result of all",
    )
