"""Whatever comes in, what goes out is a clear answer: never INTERNAL, never UNKNOWN, never the server's insides."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from pathlib import Path

import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2
from figures import Figure
from google.protobuf import descriptor, message, message_factory
from methods import Method, served_methods
from served import Api, connected, served
from waiting import DEADLINE_SECONDS

AT_ONCE = 64
STREAM_SECONDS = 1
"""How long a stream is read; most have nothing more to say then."""
INSIDES = re.compile(
    r"Traceback|Error\(|Exception|\.py\b|/work|/usr|/tmp|blobhub_server|sqlalchemy|asyncpg|sqlite|0x[0-9a-f]{6}",
    re.I,
)
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


RARE = {"request_id", "etag", "page_token", "page_size"}
"""Fields that hardly any word fits; left out mostly, so that requests get past the constraints."""


def fill(made: message.Message, seed: random.Random, known: list[str], depth: int = 0) -> None:
    """Fill a message's fields at random, often with values that mean something on the server."""
    for field in made.DESCRIPTOR.fields:
        if seed.random() < (0.9 if field.name in RARE else 0.25) or depth > 4:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.is_repeated:
            for _ in range(seed.randint(0, 3)):
                if field.message_type is not None:
                    fill(getattr(made, field.name).add(), seed, known, depth + 1)
                else:
                    getattr(made, field.name).append(scalar(field, seed, known))
        elif field.message_type is not None:
            fill(getattr(made, field.name), seed, known, depth + 1)
        else:
            setattr(made, field.name, scalar(field, seed, known))


def scalar(field: descriptor.FieldDescriptor, seed: random.Random, known: list[str]):
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        word = seed.choice(WORDS + known * 2)
        return word.encode() if field.type == field.TYPE_BYTES else word
    if kind == field.CPPTYPE_BOOL:
        return seed.random() < 0.5
    if kind in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return seed.choice([0.0, -1.5, 1e308, float("inf"), float("nan")])
    if kind == field.CPPTYPE_ENUM:
        return seed.choice([0, 1, 2, 3, 99])
    if kind in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        return seed.choice([0, 1, 2**31])
    if kind == field.CPPTYPE_INT32:
        return seed.choice([0, 1, -1, 7, 2**31 - 1, -(2**31)])
    return seed.choice([0, 1, -1, 7, 2**63 - 1, -(2**63)])


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


def request_bytes(method: Method, seed: random.Random, known: list[str]) -> bytes:
    if seed.random() < 0.15:
        return seed.randbytes(seed.randint(0, 64))
    made = message_factory.GetMessageClass(method.input)()
    fill(made, seed, known)
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


def require_clear(error: grpc.aio.AioRpcError, request: str) -> None:
    """The error is ours, and says nothing of the server's insides."""
    assert error.code().name not in ("INTERNAL", "UNKNOWN"), f"{request} {error.details()}"
    trailers = " ".join(str(value) for key, value in error.trailing_metadata() or () if not key.endswith("-bin"))
    binary = b"".join(
        value for key, value in error.trailing_metadata() or () if key.endswith("-bin") and isinstance(value, bytes)
    ).decode("latin-1")
    said = f"{error.details()} {trailers} {binary}"
    echoed = re.sub("|".join(re.escape(word) for word in WORDS if len(word) > 3), "", said)
    assert not INSIDES.search(echoed), f"{request} said {said!r}"


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
    known = [session_id, started.execution.id, started.execution.revision_id, started.execution.blob_id]
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
            require_clear(error, f"{method.path} {data.hex()}")

    async with asyncio.TaskGroup() as tasks:
        for number in range(requests):
            await room.acquire()
            method = methods[number % len(methods)]
            data = request_bytes(method, seed, known)
            tasks.create_task(make(anonymous if seed.random() < 0.1 else api, method, data))
    return codes
