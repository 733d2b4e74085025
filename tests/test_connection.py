"""Connections on which nothing happens do not stay, and there are never too many."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from blobhub_server.config import Settings
from certificates import Authority
from hostile.http2 import END_HEADERS, HEADERS, call_headers, connection, frame, literal
from kinds import GOOD, Admitted, answering
from kinds import served as serving_kinds
from raw_http2 import raw_connection
from served import connected, served
from waiting import until, within_deadline

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""An empty frame of settings (RFC 9113, section 6.5)."""
ACKNOWLEDGED = b"\0\0\0\4\1\0\0\0\0"


async def closes(address: str, sent: bytes) -> None:
    """Connect, send some bytes, and read until the server closes the connection. Raises TimeoutError if it does not."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        await within_deadline(_end(reader))
    finally:
        writer.close()


async def _end(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1 << 16):
            pass
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\n", PREFACE[:10], PREFACE, PREFACE + SETTINGS, PREFACE + SETTINGS + ACKNOWLEDGED],
    ids=["nothing", "another protocol", "half a preface", "no settings", "nothing acknowledged", "no call"],
)
async def test_a_connection_that_comes_to_nothing_is_closed(sent: bytes) -> None:
    settings = Settings(handshake_seconds=0.5, max_connection_idle_seconds=0.5)
    async with serving_kinds(settings=settings) as there:
        await closes(there.address, sent)
        assert await there.call("One", GOOD) == [answering("acme")]


async def test_a_tls_handshake_that_never_ends_is_closed(tmp_path: Path) -> None:
    authority = Authority("authority")
    certificate, key = authority.issue("server").write(tmp_path, "server")
    files = {"tls_certificate_file": certificate, "tls_key_file": key}
    hello = ssl.MemoryBIO()
    beginning = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        beginning.do_handshake()
    said = hello.read()
    async with served(tmp_path / "data", handshake_seconds=0.5, **files) as server:
        for sent in (b"", said[: len(said) // 2], said):
            await closes(server.address, sent)


async def test_a_client_that_answers_no_pings_is_gone(tmp_path: Path) -> None:
    """Its machine may have lost its power: nothing ever closes the connection, and its call is open."""
    gone = asyncio.Event()

    async def wait(_request, _call):
        try:
            yield answering("first")
            await asyncio.Event().wait()
        finally:
            gone.set()

    async with (
        serving_kinds(Many=wait, settings=Settings(keepalive_seconds=1, handshake_seconds=600)) as there,
        raw_connection(there.address, deaf=True) as raw,
    ):
        raw.begin("/test.v1.Kinds/Many", GOOD.SerializeToString())
        await within_deadline(gone.wait())


async def test_there_are_no_more_connections_than_the_operator_allows(tmp_path: Path) -> None:
    async with served(tmp_path / "data", max_connections=4) as server:
        host, _, port = server.address.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(12)]
        for _, writer in opened:
            writer.write(PREFACE + SETTINGS)
        firsts = [await within_deadline(_first(reader)) for reader, _ in opened]
        assert [bool(first) for first in firsts].count(True) == 4
        for _, writer in opened:
            writer.close()
        async with connected(server.address, None) as api:
            await within_deadline(api.channel.channel_ready())


async def test_metadata_that_becomes_a_thousand_times_what_was_sent_is_gone_through_once() -> None:
    """It needs no key: HPACK remembers a value of 4,000 bytes, and a byte stands for it from then on."""
    path = "/test.v1.Kinds/One"
    remembered = frame(HEADERS, 1, call_headers(path) + literal(b"x", b"a" * 4_000, indexed=True), END_HEADERS)
    repeated = frame(HEADERS, 3, call_headers(path) + b"\xbe" * 16_000, END_HEADERS)
    sizes = []

    class Gate(Admitted):
        def screen(self, metadata: Any) -> None:
            sizes.append(sum(len(key) + len(value) for key, value in metadata))

    async with serving_kinds(Gate()) as there, connection(there.address) as raw:
        await raw.send(remembered, repeated)
        await until(lambda: 3 in raw._ended)
        await there.call("One", GOOD)
    assert 4_000 < max(sizes) < 5_000


async def test_of_very_many_calls_that_wait_for_a_busy_loop_none_is_answered_as_if_its_caller_had_cancelled_it() -> None:
    async with serving_kinds() as there, AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(there.address, [("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(4)
        ]
        for channel in channels:
            await within_deadline(channel.channel_ready())
        calls = [channels[number % 4].unary_unary("/test.v1.Kinds/One")(GOOD.SerializeToString()) for number in range(2_400)]
        await asyncio.sleep(0)  # All of them begin, and gRPC's own threads go on with them.
        time.sleep(2)  # The loop is busy.
        codes = Counter([await within_deadline(call.code()) for call in calls])
    assert codes.total() == 2_400
    assert grpc.StatusCode.CANCELLED not in codes, codes


async def _first(reader: asyncio.StreamReader) -> bytes:
    """What a server says first; nothing when it closes the connection."""
    try:
        return await reader.read(1)
    except ConnectionError:
        return b""
