"""Networks that lose calls and cut connections, as clients meet them: each a proxy in front of a server."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import grpc
from dropping import Dropping, Fate

MOST_BYTES = 128 << 10
"""A connection is cut after fewer bytes from the server. A message of a watch has up to 32 KiB, so most bring some."""
READ_BYTES = 16 << 10


class LosingTwice(Dropping):
    """Loses each request when it comes for the first time, and the answer to it the second time."""

    def __init__(self, server: grpc.aio.Channel, seed: int) -> None:
        super().__init__(server, seed)
        self._seen: Counter[tuple[str, bytes]] = Counter()

    def choose(self, method: str, sent: Sequence[bytes]) -> Fate:
        request = method, b"".join(sent)
        self._seen[request] += 1
        return {1: Fate.REQUEST_LOST, 2: Fate.ANSWER_LOST}.get(self._seen[request], Fate.ARRIVES)


class Cutting:
    """Cuts connections until it has cut so many, each after some bytes from the server; then it cuts no more."""

    def __init__(self, address: str, cuts: int, seed: int) -> None:
        self._server = address.rsplit(":", 1)
        self._left = cuts
        self._random = random.Random(seed)
        self._open: set[asyncio.Task[None]] = set()
        self.cuts = 0

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        passing = asyncio.create_task(self._pass_both_ways(reader, writer))
        self._open.add(passing)
        passing.add_done_callback(self._open.discard)

    async def close(self) -> None:
        """End the connections that are left."""
        for passing in self._open:
            passing.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _pass_both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes, until one side ends it or it is cut."""
        from_server, to_server = await asyncio.open_connection(*self._server)
        room = self._random.randrange(MOST_BYTES) if self._left > 0 else None
        up = asyncio.create_task(_pass_on(reader, to_server, None))
        try:
            with suppress(ConnectionError):
                if await _pass_on(from_server, writer, room):
                    self._left -= 1
                    self.cuts += 1
        finally:
            up.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await up
            for each in (writer, to_server):
                each.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, room: int | None) -> bool:
    """Pass bytes on to the end, or only so many; whether it was cut."""
    while data := await reader.read(READ_BYTES):
        writer.write(data if room is None else data[:room])
        await writer.drain()
        if room is not None:
            room -= len(data)
            if room < 0:
                return True
    return False


@asynccontextmanager
async def cutting(address: str, cuts: int, seed: int) -> AsyncIterator[tuple[str, Cutting]]:
    """Run the proxy that cuts in front of a server; its address, and itself."""
    proxy = Cutting(address, cuts, seed)
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname()), proxy
    finally:
        server.close()
        await proxy.close()
