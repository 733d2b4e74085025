"""HTTP/2 by hand (RFC 9113): frames that no library would send, over a socket of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
ENABLE_PUSH, INITIAL_WINDOW, MAX_FRAME, HEADER_TABLE = 2, 4, 5, 1
WINDOW = 65_535
"""What may be sent before the other side says more."""


def frame(kind: int, stream: int = 0, payload: bytes = b"", flags: int = 0, *, length: int | None = None) -> bytes:
    """A frame; `length` is what it says of its payload, unless it is the truth."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A frame of settings."""
    return frame(SETTINGS, payload=b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs))


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """A header field as it is (RFC 7541, 6.2); `indexed` has the other side remember it."""
    return (b"\x40" if indexed else b"\x00") + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    return hpack_number(len(text), 7) + text


def hpack_number(number: int, bits: int, first: int = 0) -> bytes:
    """A number in HPACK's form, behind the bits of `first`."""
    most = (1 << bits) - 1
    if number < most:
        return bytes([first | number])
    made, number = bytearray([first | most]), number - most
    while number >= 128:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def call_headers(path: str, *more: tuple[str, str], key: str | None = None) -> bytes:
    """The header block of a gRPC call."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    fields += [("te", "trailers"), ("content-type", "application/grpc"), *([("x-api-key", key)] if key else []), *more]
    return b"".join(literal(name.encode(), value.encode()) for name, value in fields)


def prefixed(payload: bytes, *, length: int | None = None, compressed: int = 0) -> bytes:
    """A gRPC message in its five bytes of prefix; `length` is what they say, unless it is the truth."""
    return bytes([compressed]) + (len(payload) if length is None else length).to_bytes(4, "big") + payload


class Connection:
    """A connection to a server. What comes back is read and dropped, windows are kept count of."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._room: dict[int, int] = {0: WINDOW}
        self._stream_window = WINDOW
        self._ended: set[int] = set()
        self._more = asyncio.Condition()
        self.closed = asyncio.Event()
        self._next = -1

    def new_stream(self) -> int:
        """The next stream's number."""
        self._next += 2
        return self._next

    async def send(self, *frames: bytes) -> bool:
        """Send bytes; whether the server still takes any."""
        with suppress(ConnectionError):
            self._writer.write(b"".join(frames))
            await self._writer.drain()
        return not self.closed.is_set()

    async def send_data(self, stream: int, payload: bytes) -> bool:
        """Send bytes of a stream as far as the windows open; whether all were sent within some seconds.

        A stream that the server has ended takes none: its window does not open any more.
        """
        while payload:
            if stream in self._ended:
                return False
            room = min(self._room[0], self._room.setdefault(stream, self._stream_window), 16_384)
            if room <= 0:
                if not await self._await_room():
                    return False
                continue
            part, payload = payload[:room], payload[room:]
            self._room[0] -= len(part)
            self._room[stream] -= len(part)
            if not await self.send(frame(DATA, stream, part)):
                return False
        return True

    async def rest(self, seconds: float) -> None:
        """Wait until the server has closed the connection, and no longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.closed.wait()

    async def _await_room(self) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(2), self._more:
                await self._more.wait()
        return not self.closed.is_set() and self._room[0] > 0

    async def read(self) -> None:
        """Read frames until the server ends the connection."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                await self._take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
            async with self._more:
                self._more.notify_all()

    async def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            start = WINDOW if stream == 0 else self._stream_window
            self._room[stream] = self._room.get(stream, start) + int.from_bytes(payload, "big")
        elif kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self._ended.add(stream)
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                if int.from_bytes(payload[at : at + 2], "big") == INITIAL_WINDOW:
                    self._stream_window = int.from_bytes(payload[at + 2 : at + 6], "big")
            await self.send(frame(SETTINGS, flags=ACK))
        elif kind == PING and not flags & ACK:
            await self.send(frame(PING, payload=payload, flags=ACK))
        async with self._more:
            self._more.notify_all()


@asynccontextmanager
async def connection(address: str, *, first: Iterable[bytes] = (PREFACE, settings())) -> AsyncIterator[Connection]:
    """Connect, and send what a connection begins with."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    made = Connection(reader, writer)
    reading = asyncio.create_task(made.read())
    try:
        await made.send(*first)
        yield made
    finally:
        reading.cancel()
        writer.close()
        with suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()
        await asyncio.gather(reading, return_exceptions=True)
