"""A network that loses things: a proxy which passes calls on to a server, and by the throw of a die does not answer them.

It speaks for no service: requests and answers are bytes to it, and every kind of RPC is a stream each way.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

import grpc


class Fate(Enum):
    """What becomes of a call."""

    ARRIVES = "arrives"
    REQUEST_LOST = "request lost"
    CUT_OFF = "cut off while the server works"
    ANSWER_LOST = "answer lost after the commit"


WEIGHTS = {Fate.ARRIVES: 5, Fate.REQUEST_LOST: 1, Fate.CUT_OFF: 1, Fate.ANSWER_LOST: 3}
"""How often each of them comes."""

CUT_OFF_WITHIN = 0.02
"""Seconds."""


class Dropping(grpc.GenericRpcHandler):
    """Handles every method. What does not arrive ends with UNAVAILABLE, whatever the server has answered, if it has.

    `heard` keeps every answer that the server gave, arrived or not, by the method and the request's bytes; of a stream,
    all messages.
    """

    def __init__(self, server: grpc.aio.Channel, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self.fates: Counter[Fate] = Counter()
        self.heard: dict[tuple[str, bytes], list[list[bytes]]] = defaultdict(list)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def call(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            sent = [request async for request in requests]
            fate = self.choose(details.method, sent)
            self.fates[fate] += 1
            if fate is not Fate.REQUEST_LOST:
                async for answer in self._answers(fate, details, sent, context):
                    yield answer
            if fate is not Fate.ARRIVES:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the network is like this")

        return grpc.stream_stream_rpc_method_handler(call)

    def choose(self, method: str, sent: Sequence[bytes]) -> Fate:
        """What becomes of a call."""
        return self._random.choices([*WEIGHTS], [*WEIGHTS.values()])[0]

    async def _answers(self, fate: Fate, details: Any, sent: Sequence[bytes], context: Any) -> AsyncIterator[bytes]:
        """What is let through of the server's answers: all, none, or of a stream whose end is lost the beginning."""
        call = self._server.stream_stream(details.method)(_each(sent), metadata=_passed_on(details.invocation_metadata))
        if fate is Fate.CUT_OFF:
            await asyncio.sleep(self._random.uniform(0, CUT_OFF_WITHIN))
            call.cancel()
            return
        try:
            answers = [answer async for answer in call]
        except grpc.aio.AioRpcError as error:
            if fate is Fate.ARRIVES:
                await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
            return
        self.heard[details.method, b"".join(sent)].append(answers)
        for answer in answers if fate is Fate.ARRIVES else answers[: self._random.randrange(len(answers))]:
            yield answer


async def _each(sent: Sequence[bytes]) -> AsyncIterator[bytes]:
    for request in sent:
        yield request


def _passed_on(headers: Any) -> list[tuple[str, Any]]:
    """Those headers that are the caller's own."""
    return [(key, value) for key, value in headers if key != "user-agent" and not key.startswith("grpc-")]


@asynccontextmanager
async def dropping(address: str, seed: int, make: type[Dropping] = Dropping) -> AsyncIterator[tuple[str, Dropping]]:
    """Run the proxy in front of a server; its address, and itself."""
    async with grpc.aio.insecure_channel(address) as channel:
        proxy = make(channel, seed)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([proxy])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}", proxy
        finally:
            await server.stop(None)
