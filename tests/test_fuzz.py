"""Whatever comes in, what goes out is a clear answer: never INTERNAL, never UNKNOWN, never the server's insides."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2
from figures import Figure
from google.protobuf import descriptor, message, message_factory
from methods import Method, served_methods
from served import Api, connected, served
from waiting import DEADLINE_SECONDS

CPP = descriptor.FieldDescriptor
AT_ONCE = 64
STREAM_SECONDS = 1
"""How long a stream is read; most have nothing more to say then."""
INSIDES = re.compile(
    r"Traceback|Error\(|Exception|\.py\b|/work|/usr|/tmp|blobhub_server|sqlalchemy|asyncpg|sqlite|0x[0-9a-f]{6}",
    re.I,
)
SIGNS = (
    *("traceback", "error(", "exception", ".py", "/work", "/usr", "/tmp", "blobhub_server", "sqlalchemy", "asyncpg"),
    *("sqlite", "0x"),
)
"""What matches INSIDES has one of these in it, as hardly any answer has; looking for them is much quicker."""
WORDS = [
    "",
    "acme",
    "acme/pipeline",
    "acme/pipeline@draft",
    "acme/pipeline@1",
    "@",
    "//",
    "a" * 500,
    "\x00",
    "é" * 9,
    "..",
    "00000000-0000-7000-8000-000000000000",
    "workflow",
    "blobhub.compute.workflow",
    "'; DROP TABLE blobs;--",
    "%s%n",
    "-1",
]
ECHOES = re.compile("|".join(re.escape(word) for word in WORDS if len(word) > 3))

RARE = {"request_id", "etag", "page_token", "page_size"}
"""Fields that hardly any word fits; left out mostly, so that requests get past the constraints."""


class Filled(NamedTuple):
    """A field that requests are filled in: looking it up in the descriptor takes longer than filling it."""

    name: str
    left_out: float
    repeated: bool
    draw: Callable[[random.Random, list[str]], Any] | None


@cache
def fields_of(kind: descriptor.Descriptor) -> list[Filled | None]:
    """The fields of a message; none in the place of a map."""
    return [None if is_map(field) else filled(field) for field in kind.fields]


def is_map(field: descriptor.FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def filled(field: descriptor.FieldDescriptor) -> Filled:
    """How a field is filled; those that are no messages by a draw."""
    draw = scalar(field) if field.message_type is None else None
    return Filled(name=field.name, left_out=0.9 if field.name in RARE else 0.25, repeated=field.is_repeated, draw=draw)


def fill(made: message.Message, seed: random.Random, words: list[str], depth: int = 0) -> None:
    """Fill a message's fields at random, often with values that mean something on the server."""
    if depth > 4:
        return
    for field in fields_of(made.DESCRIPTOR):
        if field is None or seed.random() < field.left_out:
            continue
        for _ in range(seed.randint(0, 3) if field.repeated else 1):
            if field.draw is None:
                inner = getattr(made, field.name)
                fill(inner.add() if field.repeated else inner, seed, words, depth + 1)
            elif field.repeated:
                getattr(made, field.name).append(field.draw(seed, words))
            else:
                setattr(made, field.name, field.draw(seed, words))


NUMBERS: dict[int, tuple[Any, ...]] = {
    **dict.fromkeys((CPP.CPPTYPE_DOUBLE, CPP.CPPTYPE_FLOAT), (0.0, -1.5, 1e308, float("inf"), float("nan"))),
    **dict.fromkeys((CPP.CPPTYPE_UINT32, CPP.CPPTYPE_UINT64), (0, 1, 2**31)),
    CPP.CPPTYPE_ENUM: (0, 1, 2, 3, 99),
    CPP.CPPTYPE_INT32: (0, 1, -1, 7, 2**31 - 1, -(2**31)),
    CPP.CPPTYPE_INT64: (0, 1, -1, 7, 2**63 - 1, -(2**63)),
}


def scalar(field: descriptor.FieldDescriptor) -> Callable[[random.Random, list[str]], Any]:
    """What draws a value of a field that is no message."""
    if field.type == CPP.TYPE_BYTES:
        return lambda seed, words: seed.choice(words).encode()
    if field.type == CPP.TYPE_STRING:
        return random.Random.choice
    if field.cpp_type == CPP.CPPTYPE_BOOL:
        return lambda seed, _words: seed.random() < 0.5
    numbers = NUMBERS[field.cpp_type]
    return lambda seed, _words: seed.choice(numbers)


def mutate(data: bytes, seed: random.Random) -> bytes:
    """Flip, cut or insert bytes."""
    out = bytearray(data)
    for _ in range(seed.randint(1, 4)):
        where = seed.randint(0, len(out))
        how = seed.random()
        if how < 0.4 and where < len(out):
            out[where] ^= 1 << seed.randint(0, 7)
        elif how < 0.7:
            out[where:where] = seed.randbytes(seed.randint(1, 8))
        else:
            del out[where : where + seed.randint(1, 8)]
    return bytes(out)


def request_bytes(method: Method, seed: random.Random, words: list[str]) -> bytes:
    if seed.random() < 0.15:
        return seed.randbytes(seed.randint(0, 64))
    made = message_factory.GetMessageClass(method.input)()
    fill(made, seed, words)
    data = made.SerializeToString()
    return mutate(data, seed) if seed.random() < 0.4 else data


async def call(api: Api, method: Method, data: bytes) -> grpc.aio.AioRpcError | None:
    """Make a call with raw bytes; streams are read for a few messages and dropped."""
    try:
        if method.server_streaming:
            stream = api.channel.unary_stream(method.path)(data, timeout=STREAM_SECONDS)
            async for count, _ in _counted(stream):
                if count == 3:
                    stream.cancel()
                    return None
        else:
            await api.channel.unary_unary(method.path)(data, timeout=DEADLINE_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def _counted(stream):
    count = 0
    async for item in stream:
        count += 1
        yield count, item


def require_clear(error: grpc.aio.AioRpcError, method: Method, data: bytes) -> None:
    """The error is ours, and says nothing of the server's insides."""
    request = f"{method.path} {data.hex()}"
    assert error.code().name not in ("INTERNAL", "UNKNOWN"), f"{request} {error.details()}"
    told = [error.details() or ""]
    told += [
        value.decode("latin-1") if isinstance(value, bytes) else str(value) for _, value in error.trailing_metadata() or ()
    ]
    said = " ".join(told)
    lowered = said.lower()
    if any(sign in lowered for sign in SIGNS):
        assert not INSIDES.search(ECHOES.sub("", said)), f"{request} said {said!r}"


@pytest.mark.timeout(3600)
async def test_fuzzed_requests_get_clear_answers(
    tmp_path: Path, database_url: str, figure: Figure, pytestconfig: pytest.Config
) -> None:
    requests = pytestconfig.getoption("fuzz") // 2
    async with (
        served(tmp_path / "data", database_url, log_level="warning") as server,
        connected(server.address, server.admin_key) as api,
        connected(server.address, None) as anonymous,
    ):
        began, spent = time.monotonic(), time.process_time()
        codes = await fuzz(api, anonymous, requests)
        wall, processor = time.monotonic() - began, time.process_time() - spent
    assert min(codes["OK"], codes["INVALID_ARGUMENT"]) > requests // 500, codes
    made = sum(codes.values())
    figure(f"{made} requests: {codes}; {made / wall:.0f}/s, {processor / made * 1e6:.0f} µs of the processor each")


async def fuzz(api: Api, anonymous: Api, requests: int) -> Counter[str]:
    """Make so many requests, one in ten without a key; how often each code was answered."""
    seed = random.Random(1)
    session_id = await api.session(flows.steps(2))
    started = await api.executions.StartExecution(
        execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
    )
    words = [*WORDS, *2 * [session_id, started.execution.id, started.execution.revision_id, started.execution.blob_id]]
    methods = served_methods()
    codes: Counter[str] = Counter()
    room = asyncio.Semaphore(AT_ONCE)

    async def make(client: Api, method: Method, data: bytes) -> None:
        try:
            error = await call(client, method, data)
        finally:
            room.release()
        codes[error.code().name if error else "OK"] += 1
        if error is not None and error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            require_clear(error, method, data)

    async with asyncio.TaskGroup() as tasks:
        for number in range(requests):
            await room.acquire()
            method = methods[number % len(methods)]
            data = request_bytes(method, seed, words)
            tasks.create_task(make(anonymous if seed.random() < 0.1 else api, method, data))
    return codes
