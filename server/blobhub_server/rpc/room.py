"""Room for requests that are being received: what callers send, and have not sent to its end, takes memory.

gRPC takes in a whole message, up to 4 MiB or what its port allows, for every call that asks for one, and asks as soon as it
has a handler. So calls are let in by turns: a call of somebody who was identified a moment ago is received at once, as long
as few are under way. Every other call waits for a place before it asks for its message; until then it holds no more than its
window, 64 KiB. Those whom nothing identifies have places of their own, so they keep nobody else waiting. No sender has more
than a part of the places, and no message may take longer than a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import unquote

from blobhub_server.errors import Overloaded
from blobhub_server.turnstile import Party

MAX_AT_ONCE, MAX_AT_ONCE_PER_CALLER = 16, 8
"""How many calls of known callers are received at the same time without taking a place, and how many of one of them."""
KNOWN_PLACES, UNKNOWN_PLACES = 8, 4
"""Places for known callers, and for those whom nothing identifies."""
STREAM_PLACES = 32
"""Places for the messages of known callers' streams of requests. A sender of small pieces is waited for most of the time: so
they are apart, and keep no other calls waiting. A place that waits holds 64 KiB."""
APART = {
    "/grpc.health.v1.Health/Check": 16,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": 4,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": 4,
}
"""Methods with places of their own, and how many: health is answered whoever stalls, and streams of reflection idle."""
MAX_WAITING, MAX_WAITING_UNKNOWN = 256, 128
"""How many calls of known callers may wait for a place, and of those whom nothing identifies. They hold 64 KiB each."""
MAX_WAITING_PER_CALLER, MAX_WAITING_PER_ADDRESS = 128, 32
"""How many of them may be of one known caller, and of one address. Addresses cost an attacker less than keys do."""
MAX_WAIT_SECONDS = 10.0
LARGE_BYTES = 64 << 10
"""A request of more than that keeps its place until its handler begins, because it is decoded and checked until then."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends a request: a caller's identity, or the address of a peer whom nothing identifies."""

    name: str
    known: bool

    @property
    def party(self) -> Party:
        """Whose turn it is where requests wait for each other."""
        return self.name, self.name


NOBODY = Sender(name="", known=False)


def address_of(peer: str) -> str:
    """The address of a peer as gRPC names it, such as `ipv4:127.0.0.1:50000`; of IPv6 the network that one site has."""
    kind, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        return kind
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else host


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomSize:
    """How many messages a port receives at once, of each kind. No sender has more than half of the places, or one."""

    at_once: int = MAX_AT_ONCE
    known: int = KNOWN_PLACES
    unknown: int = UNKNOWN_PLACES
    streams: int = STREAM_PLACES
    apart: Mapping[str, int] = field(default_factory=lambda: APART)


@dataclass(slots=True)
class _Share:
    """What one sender has of the room: its turns, and how many of its calls are there, waiting or not."""

    turns: asyncio.Semaphore
    calls: int = 0


@dataclass(slots=True)
class _Places:
    """Places of one kind: for all senders and for each, and how many calls may be there, waiting or not.

    Calls are counted by kind, so those whom nothing identifies fill nobody else's queue.
    """

    free: asyncio.Semaphore
    each: int
    max_calls: int
    max_calls_each: int
    calls: int = 0
    shares: dict[str, _Share] = field(default_factory=dict)

    def share(self, sender: Sender) -> _Share:
        """What a sender has here. Raises Overloaded when no further call may wait."""
        share = self.shares.get(sender.name)
        if self.calls >= self.max_calls or (share is not None and share.calls >= self.max_calls_each):
            raise Overloaded
        # Kept only for a call that may wait, because the end of that call removes it.
        return share or self.shares.setdefault(sender.name, _Share(turns=asyncio.Semaphore(self.each)))


def _places(count: int, *, known: bool) -> _Places:
    return _Places(
        free=asyncio.Semaphore(count),
        each=max(1, count // 2),
        max_calls=MAX_WAITING if known else MAX_WAITING_UNKNOWN,
        max_calls_each=MAX_WAITING_PER_CALLER if known else MAX_WAITING_PER_ADDRESS,
    )


class Room:
    """The room of one port."""

    def __init__(self, size: RoomSize | None = None) -> None:
        size = size or RoomSize()
        self._max_at_once = size.at_once
        self._at_once: dict[asyncio.Task[object], str] = {}
        self._known = _places(size.known, known=True)
        self._streams = _places(size.streams, known=True)
        self._unknown = _places(size.unknown, known=False)
        self._apart = {method: _places(count, known=False) for method, count in size.apart.items()}

    def enter_at_once(self, sender: Sender) -> bool:
        """Let the running task's call be received at once, if few are, and few of its sender; whether it is."""
        senders = list(self._at_once.values())
        if len(senders) >= self._max_at_once or senders.count(sender.name) >= MAX_AT_ONCE_PER_CALLER:
            return False
        task = asyncio.current_task()
        assert task is not None, "gRPC calls interceptors in tasks"
        self._at_once[task] = sender.name
        task.add_done_callback(self.leave)
        return True

    def leave(self, task: asyncio.Task[object] | None) -> None:
        """Note that the call of a task is not being received any more, if it was let in at once."""
        if task is not None:
            self._at_once.pop(task, None)

    @asynccontextmanager
    async def place(self, sender: Sender, method: str = "", *, streaming: bool = False) -> AsyncIterator[None]:
        """Wait for a place, and have it until the block is left. Raises Overloaded when there is none for too long."""
        places = self._apart.get(method) or self._places_of(sender, streaming=streaming)
        share = places.share(sender)
        share.calls += 1
        places.calls += 1
        try:
            async with AsyncExitStack() as taken:
                try:
                    # One deadline for both: who has waited for a turn has waited.
                    async with asyncio.timeout(MAX_WAIT_SECONDS):
                        await taken.enter_async_context(share.turns)
                        await taken.enter_async_context(places.free)
                except TimeoutError:
                    raise Overloaded from None
                yield
        finally:
            places.calls -= 1
            share.calls -= 1
            if share.calls == 0:
                del places.shares[sender.name]

    def _places_of(self, sender: Sender, *, streaming: bool) -> _Places:
        if not sender.known:
            return self._unknown
        return self._streams if streaming else self._known
