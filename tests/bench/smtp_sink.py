"""A mail server that takes everything as quickly as it can, as a program.

It keeps the token of each mail. A second port tells, a question and an answer a line:

    token ADDRESS    the token in the address's latest mail, as soon as that mail is there
    mails NUMBER     once so many have come: the seconds between the first and the last of them
    forget           starts anew
"""

import asyncio
import re
import time
from typing import Final

_TOKEN: Final = re.compile(rb"token=([A-Za-z0-9_-]{64})")
_END: Final = b"\r\n.\r\n"


class Mails:
    """What has come."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        self.moments: list[float] = []
        self.connections = 0
        self._waiting: dict[str, list[asyncio.Future[str]]] = {}
        self._counting: list[tuple[int, asyncio.Future[None]]] = []

    def take(self, address: str, content: bytes) -> None:
        found = _TOKEN.search(content)
        token = found[1].decode() if found else "none"
        self.tokens[address] = token
        self.moments.append(time.perf_counter())
        for waiting in self._waiting.pop(address, ()):
            waiting.set_result(token)
        while self._counting and self._counting[0][0] <= len(self.moments):
            self._counting.pop(0)[1].set_result(None)

    async def token(self, address: str) -> str:
        if address in self.tokens:
            return self.tokens[address]
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, []).append(waiting)
        return await waiting

    async def seconds(self, number: int) -> str:
        if len(self.moments) < number:
            counted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._counting.append((number, counted))
            await counted
        return f"{self.moments[number - 1] - self.moments[0]} {self.connections}"

    def forget(self) -> str:
        self.tokens.clear()
        self.moments.clear()
        self.connections = 0
        return "forgotten"


class Session(asyncio.Protocol):
    """One SMTP connection (RFC 5321), without a wait but for its client."""

    def __init__(self, mails: Mails) -> None:
        self._mails = mails
        self._received = b""
        self._is_content = False
        self._address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._mails.connections += 1
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            end = _END if self._is_content else b"\r\n"
            head, found, rest = self._received.partition(end)
            if not found:
                return
            self._received = rest
            if self._is_content:
                self._mails.take(self._address, head)
                self._is_content = False
                self._transport.write(b"250 taken\r\n")
            else:
                self._command(head)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._address = line.partition(b"<")[2].partition(b">")[0].decode()
        self._is_content = verb == b"DATA"
        replies = {b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}
        self._transport.write(replies.get(verb, b"250 sink\r\n"))
        if verb == b"QUIT":
            self._transport.close()


async def _answer(mails: Mails, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        question, _, about = line.decode().strip().partition(" ")
        if question == "token":
            answer = await mails.token(about)
        elif question == "mails":
            answer = await mails.seconds(int(about))
        else:
            answer = mails.forget()
        writer.write(f"{answer}\n".encode())
    writer.close()


async def _serve() -> None:
    mails = Mails()
    smtp = await asyncio.get_running_loop().create_server(lambda: Session(mails), "127.0.0.1", 0)
    told = await asyncio.start_server(lambda r, w: _answer(mails, r, w), "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (smtp, told)]
    print(f"listening on {ports[0]} {ports[1]}", flush=True)
    await asyncio.gather(smtp.serve_forever(), told.serve_forever())


if __name__ == "__main__":
    asyncio.run(_serve())
