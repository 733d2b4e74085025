"""The yardsticks: what the same process can do with gRPC and SQLite when there is no BlobHub in between.

* `/bare/Empty`: a unary call that answers nothing.
* `/bare/Stream`: sends a number of messages of a given size as fast as it can.
* `/bare/Run`: the bare loop of an execution: one streaming call, twelve events made, stored and sent as protobuf, two
  group-committed SQLite transactions with `synchronous=FULL`, no engine.
* `/bare/Upload`: writes the messages of a stream to a file, and answers when that is on disk.
* `/bare/Download`: sends that file in messages of 1 MiB.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from blobhub.v1 import event_pb2, execution_pb2

CHUNK_BYTES = 1 << 20
ID = "01890000-0000-7000-8000-000000000000"


def events(first: int) -> list[event_pb2.Event]:
    """Six events such as an execution has."""
    made = []
    for number in range(first, first + 6):
        event = event_pb2.Event(
            id=ID,
            session_sequence=number,
            execution_sequence=number,
            type="processor.exited",
            session_id=ID,
            execution_id=ID,
            revision_id=ID,
        )
        event.create_time.GetCurrentTime()
        event.processor.processor_id = event.processor.processor_name = "component"
        event.processor.processor_type = "logic.expression"
        event.processor_exited.route = "success"
        made.append(event)
    return made


class Committer:
    """Group commit at its barest: one thread, whatever has queued up goes into one transaction."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[list[tuple[int, bytes]], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._path = path
        self._connection: sqlite3.Connection | None = None

    async def commit(self, rows: list[tuple[int, bytes]]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await loop.run_in_executor(self._thread, self._write, [row for rows, _ in batch for row in rows])
            for _, done in batch:
                done.set_result(None)
        self._task = None

    def _write(self, rows: list[tuple[int, bytes]]) -> None:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("CREATE TABLE events (execution INTEGER, event BLOB)")
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO events VALUES (?, ?)", rows)
        self._connection.execute("COMMIT")


def handlers(committer: Committer, file: Path) -> grpc.GenericRpcHandler:
    """The bare service; requests and answers are bytes. `file` is what is sent and fetched."""

    async def empty(request: bytes, context: object) -> bytes:
        return b""

    async def stream(request: bytes, context: object) -> AsyncIterator[bytes]:
        count, size = map(int, request.split())
        message = b"e" * size
        for _ in range(count):
            yield message

    async def run(request: bytes, context: object) -> AsyncIterator[bytes]:
        for first in (1, 7):
            made = events(first)
            await committer.commit([(1, event.SerializeToString()) for event in made])
            yield execution_pb2.RunExecutionResponse(events=made).SerializeToString()

    async def upload(requests: AsyncIterator[bytes], context: object) -> bytes:
        part = file.with_suffix(".part")
        with part.open("wb") as written:
            async for chunk in requests:
                written.write(chunk)
            written.flush()
            await asyncio.to_thread(os.fsync, written.fileno())
        part.replace(file)
        return b""

    async def download(request: bytes, context: object) -> AsyncIterator[bytes]:
        with file.open("rb") as read:
            while chunk := read.read(CHUNK_BYTES):
                yield chunk

    return grpc.method_handlers_generic_handler(
        "bare",
        {
            "Empty": grpc.unary_unary_rpc_method_handler(empty),
            "Stream": grpc.unary_stream_rpc_method_handler(stream),
            "Run": grpc.unary_stream_rpc_method_handler(run),
            "Upload": grpc.stream_unary_rpc_method_handler(upload),
            "Download": grpc.unary_stream_rpc_method_handler(download),
        },
    )
