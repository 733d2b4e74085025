"""An HTTP server in the process of the tests, which answers as it is told, well and badly, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    """A request. Names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is sent: a head and pieces of a body, one after the other. `length` is what the head says, unless it is None.

    `raw` is sent instead of all that; `hang` then sends nothing more, and closes nothing.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    pieces: Sequence[bytes] = ()
    raw: bytes | None = None
    length: int | None = None
    hang: bool = False

    @property
    def bytes(self) -> list[bytes]:
        if self.raw is not None:
            return [self.raw]
        length = [] if self.length is None else [("content-length", str(self.length))]
        lines = [f"HTTP/1.1 {self.status} Whatever", *(f"{name}: {value}" for name, value in (*self.headers, *length))]
        head = "\r\n".join([*lines, "connection: close", "", ""])
        return [head.encode("latin-1" if max(head) < "\u0100" else "utf-8"), *self.pieces]


def said(body: bytes | str, status: int = 200, type_: str = "text/plain", **headers: str) -> Answer:
    """An answer with a body; names of headers with `_` for `-`."""
    data = body.encode() if isinstance(body, str) else body
    pairs = [("content-type", type_), *((name.replace("_", "-"), value) for name, value in headers.items())]
    return Answer(status=status, headers=pairs, pieces=[data], length=len(data))


def moved(location: str, status: int = 302) -> Answer:
    return Answer(status=status, headers=[("location", location)], length=0)


Respond = Callable[[Asked], Answer]


@dataclass
class Web:
    """The server. `respond` says what it answers; `asked` is what it was asked."""

    respond: Respond = lambda asked: said("hello")
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    connections: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            asked = Asked(method=method, path=path, headers=headers, body=body)
            self.asked.append(asked)
            answer = self.respond(asked)
            for piece in answer.bytes:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if answer.hang:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def web(
    respond: Respond | None = None, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Web]:
    """Serve on a free port until the block is left."""
    made = Web(scheme="https" if tls else "http")
    if respond is not None:
        made.respond = respond
    server = await asyncio.start_server(made.serve, host, 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
