"""Prints mails, for trying the service out. They hold working links: not for production."""

from typing import TextIO

from identity.mail.sender import Mail

_RULE = "-" * 72


class ConsoleSender:
    """Writes every mail whole to a stream: never through the logger, whose lines are kept."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, mail: Mail) -> None:
        # Lines end as a terminal's do, not as on the wire: a copied link must not end in CR.
        text = mail.message.as_string(policy=mail.message.policy.clone(linesep="\n"))
        self._stream.write(f"{_RULE}\n{text}\n{_RULE}\n")
        self._stream.flush()

    def close(self) -> None:
        """There is nothing to let go of."""
