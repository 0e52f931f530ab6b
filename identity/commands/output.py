"""What commands print."""

import os
import sys


def print_whole(text: str) -> str | None:
    """Prints to stdout. Returns why it could not, in one line for the operator."""
    try:
        print(text, flush=True)
    except OSError as error:
        # `| head` has read enough. The interpreter would complain of what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"cannot write to stdout: {error.strerror}"
    return None
