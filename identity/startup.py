"""What a start tells its operator: where the service listens, or why it does not."""

from typing import Final

from identity.values import Endpoint

EXIT_FAILED: Final = 1
EXIT_MISUSED: Final = 2  # as argparse: the fault lies in what was given


class StartError(Exception):
    """The service can't start. The text is one line for the operator."""


class CannotListen(StartError):
    """The address can't be had."""

    def __init__(self, listen: Endpoint) -> None:
        super().__init__(f"IDENTITY_LISTEN: cannot listen on {listen}: in use, or not ours")


def announce(endpoint: Endpoint) -> None:
    """Says on stdout that calls are answered. Raises StartError."""
    try:
        print(f"listening on {endpoint}", flush=True)
    except OSError as error:
        raise StartError(f"cannot write to stdout: {error.strerror}") from None
