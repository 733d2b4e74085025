"""Requests on their way in: read, decoded, and validated where the gate has not done so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from blobhub_server.errors import InvalidRequest, UndecodableRequest, Violation
from blobhub_server.rpc.room import LARGE_BYTES, NOBODY, Room, Sender
from blobhub_server.rpc.transport_error import RequestUnfinished
from blobhub_server.rpc.validation import validate
from blobhub_server.rpc.value_bound import MAX_FIELDS, MAX_LISTED_BYTES, MAX_MESSAGE_ITEMS, bound_check
from blobhub_server.turnstile import Party, off_loop

Decode = Callable[[bytes, Party], Awaitable[Message]]
Weigh = Callable[[bytes], int]
"""How many bytes of a request are to be gone over, which is off the event loop where they are many."""


def strict_decoder(decode: Callable[[bytes], Message], weigh: Weigh) -> Decode:
    """Decoding that raises UndecodableRequest, whatever is wrong with the bytes, and InvalidRequest for too many of them."""
    has_too_much = bound_check(decode(b""))

    def strict(data: bytes) -> Message:
        if has_too_much(data):
            bound = f"may have {MAX_FIELDS} fields, and {MAX_MESSAGE_ITEMS} items in all its Values"
            other = "send larger values as JSON text, in the field beside them"
            if len(data) > MAX_LISTED_BYTES:
                bound += f", and {MAX_LISTED_BYTES} bytes in lists of numbers"
                other += ", and more numbers as raw bytes"
            raise InvalidRequest([Violation("", f"{bound}; {other}")])
        try:
            return decode(data)
        except Exception:
            raise UndecodableRequest from None

    return lambda data, party: off_loop(weigh(data), party, partial(strict, data))


class Arriving:
    """The requests of a call that reads them by itself, in a place of the room.

    It gives up its place when its one request is there, or, when that is large, when `leave` is called; a stream of requests
    takes one for each.
    """

    def __init__(
        self,
        *,
        context: Any,
        room: Room,
        method: str,
        sender: Callable[[], Awaitable[Sender]],
        decode: Decode,
        weigh: Weigh,
        streaming: bool,
        max_seconds: float,
    ) -> None:
        """`max_seconds` is how long each message may take."""
        self._context = context
        self._room = room
        self._method = method
        self._sender = sender
        self._decode = decode
        self._weigh = weigh
        self._streaming = streaming
        self._max_seconds = max_seconds
        self._place = AsyncExitStack()
        self._sent_by = NOBODY
        self.size = 0
        """The bytes of the request that was read last. To ask a message for them is to encode it, on the event loop."""
        self.weight = 0
        """How many of them are to be gone over."""

    async def first(self) -> Message:
        """The first request. Raises Overloaded, RequestUnfinished, UndecodableRequest; InvalidRequest for none."""
        await self._enter()
        data = await self._read()
        if data is grpc.aio.EOF:
            raise InvalidRequest([Violation("", "the call has no message")])
        if len(data) <= LARGE_BYTES and not self._streaming:
            await self.leave()
        return await self._decode(data, self._sent_by.party)

    async def decoded(self) -> AsyncIterator[Message]:
        """All requests, none of them validated. Raises the same."""
        yield await self.first()
        async for request in self._rest():
            yield request

    async def validated(self, first: Message) -> AsyncIterator[Message]:
        """All requests: the first, which the gate has validated, and the others, which are validated here."""
        yield first
        async for request in self._rest():
            await off_loop(self.weight, self._sent_by.party, partial(validate, request))
            yield request

    async def _rest(self) -> AsyncIterator[Message]:
        while True:
            # Each message waits for its turn anew, so that a stream has no place for ever.
            await self.leave()
            await self._enter()
            if (data := await self._read()) is grpc.aio.EOF:
                return
            yield await self._decode(data, self._sent_by.party)

    async def _enter(self) -> None:
        self._sent_by = await self._sender()
        await self._place.enter_async_context(self._room.place(self._sent_by, self._method, streaming=self._streaming))

    async def _read(self) -> Any:
        try:
            async with asyncio.timeout(self._max_seconds):
                data = await self._context.read()
        except TimeoutError:
            raise RequestUnfinished(self._max_seconds) from None
        self.size, self.weight = (0, 0) if data is grpc.aio.EOF else (len(data), self._weigh(data))
        return data

    async def leave(self) -> None:
        """Give up the place, if it is held still."""
        await self._place.aclose()
