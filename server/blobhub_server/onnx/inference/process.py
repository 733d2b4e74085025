"""The process of one model, as the server sees it: started with the model, asked in order, killed in the end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import Any, cast

from blobhub_server.background import uninterrupted
from blobhub_server.errors import BlobHubError
from blobhub_server.objects.disk import storage_errors
from blobhub_server.onnx import confinement
from blobhub_server.onnx.inference.errors import InferenceCrashed, InferenceExhausted, InferenceRefused, ModelNotLoaded
from blobhub_server.onnx.inference.frame import BrokenFrame, FrameReader, read_tensors
from blobhub_server.onnx.inference.limits import ProcessLimits
from blobhub_server.onnx.inference.tensor import Tensor
from blobhub_server.process_group import Output, ProcessGroup
from blobhub_server.scarcity import scarcity_errors

CHILD = "blobhub_server.onnx.inference.child"
MAX_SAID_BYTES = 8 << 10
"""How much is kept of what a process writes to its standard error."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of a batch, and how long it was computed, in nanoseconds."""

    outputs: list[Tensor]
    compute_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A batch that is not answered yet: of how many requests, and how many bytes its answer may have."""

    future: asyncio.Future[Answer]
    requests: int
    max_answer_bytes: int


class ProcessEnded(Exception):
    """The process has ended, and this batch is not answered. `error` is what the batch at its head is told."""

    def __init__(self, error: BlobHubError, *, at_fault: bool) -> None:
        """`at_fault` is whether this is the batch that it was at."""
        super().__init__(error.message)
        self.error = error
        self.at_fault = at_fault


class ModelProcess(asyncio.Protocol):
    """A process that has loaded a model, or is about to. It belongs to one event loop."""

    batchable = False
    """Whether the model answers requests that are put together. Known once it is loaded."""

    def __init__(self, limits: ProcessLimits, on_end: Callable[[BlobHubError, int], None]) -> None:
        """`on_end` hears that the process has ended by itself after it had loaded the model, and at a batch of how many
        requests, before those who wait do.
        """
        self._limits = limits
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._process: ProcessGroup | None = None
        self._said = Output(MAX_SAID_BYTES)
        self._ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._asked: deque[_Asked] = deque()
        self._writable = asyncio.Event()
        self._writable.set()
        self._clock: asyncio.TimerHandle | None = None
        self._late = self._loaded = False
        self._over = asyncio.Event()
        self._broken = ""
        self._telling: asyncio.Task[None] | None = None
        self._wanted = True

    @property
    def asked(self) -> int:
        """How many batches it has not answered."""
        return len(self._asked)

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    async def start(self, model: AsyncIterator[bytes], size: int) -> None:
        """Start the process and have it load the model of so many bytes. Raises ModelNotLoaded, InferenceExhausted, what
        reading the model raises, and, where no process can be started now, Overloaded, StorageFull or StorageUnavailable;
        then no process is left.
        """
        try:
            async with asyncio.timeout(self._limits.max_load_seconds) as clock:
                await self._begin()
                await self._send_model(model, size, clock)
                loaded = await self._ready
        except TimeoutError:
            await uninterrupted(self.end())
            raise InferenceExhausted(
                "time", f"loading the model took more than {self._limits.max_load_seconds:g} s"
            ) from None
        except BaseException:
            await uninterrupted(self.end())
            raise
        if "error" in loaded:
            await uninterrupted(self.end())
            if loaded["error"] == "memory":
                raise InferenceExhausted("memory", self._no_memory("load"))
            raise ModelNotLoaded(str(loaded.get("message", "")))
        self.batchable, self._loaded = loaded.get("batchable") is True, True

    async def _begin(self) -> None:
        command = (sys.executable, "-I", "-B", "-m", CHILD, json.dumps(asdict(self._limits)))
        env = confinement.ENVIRONMENT
        # The folder is gone as soon as the process is in it: there is nothing to find in it, and nothing to clean up.
        with storage_errors():
            made = TemporaryDirectory(prefix="blobhub-model-", ignore_cleanup_errors=True)
        with made as folder, scarcity_errors():
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    self._process = ProcessGroup(*command, cwd=folder, env=env, stdin=theirs, stderr=self._said)
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        # Of a connection that is cancelled once it is made uvloop tells no end, which `end` waits for.
        await uninterrupted(self._loop.create_unix_connection(lambda: self, sock=ours))

    async def _send_model(self, model: AsyncIterator[bytes], size: int, clock: asyncio.Timeout) -> None:
        assert self._transport is not None
        self._transport.write(size.to_bytes(8, "little"))
        while (chunk := await self._next_chunk(model, clock)) and not self._over.is_set():
            self._transport.write(chunk)
            await self._writable.wait()

    async def _next_chunk(self, model: AsyncIterator[bytes], clock: asyncio.Timeout) -> bytes:
        """More of a model; nothing at its end. The clock stands meanwhile: a slow object store is not the model's fault."""
        when = clock.when()
        assert when is not None
        left = when - self._loop.time()
        clock.reschedule(None)
        chunk = await anext(model, b"")
        clock.reschedule(self._loop.time() + left)
        return chunk

    def ask(self, frame: Sequence[bytes | memoryview], requests: int, max_answer_bytes: int) -> asyncio.Future[Answer]:
        """Have it answer a batch of so many requests with so many bytes at most, after those before, while it is open.

        The future raises InferenceRefused, InferenceExhausted or ProcessEnded.
        """
        assert self._transport is not None
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._asked.append(_Asked(future=future, requests=requests, max_answer_bytes=max_answer_bytes))
        if len(self._asked) == 1:
            self._begin_clock()
        self._transport.writelines(frame)
        return future

    def memory_bytes(self) -> int:
        """The memory that it holds for itself; 0 where that cannot be told."""
        assert self._process is not None
        try:
            with open(f"/proc/{self._process.pid}/statm", encoding="ascii") as file:
                _, resident, shared, *_ = map(int, file.read().split())
        except (OSError, ValueError):
            return 0
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

    async def end(self) -> None:
        """Kill the process and its group, and wait for its end."""
        self._wanted = False
        if self._transport is not None:
            self._transport.abort()
        if self._process is None:
            return
        await self._process.end()
        if self._transport is not None:
            await self._over.wait()
        if self._telling is not None:
            await asyncio.wait({self._telling})

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def pause_writing(self) -> None:  # noqa: D102
        self._writable.clear()

    def resume_writing(self) -> None:  # noqa: D102
        self._writable.set()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        try:
            self._frames.max_data_bytes = self._asked[0].max_answer_bytes if self._asked else 0
            for header, body in self._frames.feed(data):
                self._take(header, body)
        except (BrokenFrame, ValueError, TypeError, KeyError, IndexError):
            self._broken = "an answer that is none"
            self._kill()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._over.set()
        self._writable.set()
        if self._clock is not None:
            self._clock.cancel()
        self._telling = self._loop.create_task(self._tell_end())

    def _take(self, header: dict[str, Any], body: bytes) -> None:
        if not self._ready.done():
            self._ready.set_result(header)
            return
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        outcome = _read_answer(header, body)
        future = self._asked.popleft().future
        if self._asked:
            self._frames.max_data_bytes = self._asked[0].max_answer_bytes
            self._begin_clock()
        if future.cancelled():
            return
        if isinstance(outcome, Answer):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    def _begin_clock(self) -> None:
        self._clock = self._loop.call_later(self._limits.max_run_seconds, self._on_late)

    def _on_late(self) -> None:
        self._late = True
        self._kill()

    async def _tell_end(self) -> None:
        """Tell all that wait how the process has ended."""
        assert self._process is not None
        await self._process.end()
        returncode, said = await self._process.wait(), self._said.data
        if not self._ready.done():
            self._ready.set_result(self._failed_load(returncode, said))
        error = self._error(returncode, said)
        if self._wanted and self._loaded:
            self._on_end(error, self._asked[0].requests if self._asked else 0)
        head = True
        while self._asked:
            future = self._asked.popleft().future
            if not future.done():
                future.set_exception(ProcessEnded(error, at_fault=head))
                future.exception()  # or asyncio would log it where all who waited have gone
            head = False

    def _failed_load(self, returncode: int, said: bytes) -> dict[str, Any]:
        if confinement.ended_for_memory(said):
            return {"error": "memory"}
        return {"error": "unloadable", "message": f"its process ended with {confinement.describe_end(returncode)}"}

    def _error(self, returncode: int, said: bytes) -> BlobHubError:
        if self._late or confinement.ended_for_time(returncode):
            return InferenceExhausted("time", f"the answer took more than {self._limits.max_run_seconds:g} s")
        if confinement.ended_for_memory(said):
            return InferenceExhausted("memory", self._no_memory("answer this"))
        return InferenceCrashed(self._broken or confinement.describe_end(returncode))

    def _no_memory(self, what: str) -> str:
        return f"the model took more than {self._limits.max_memory_bytes >> 20} MiB of memory to {what}"


def _read_answer(header: dict[str, Any], body: bytes) -> Answer | BlobHubError:
    kind = header.get("error")
    if kind is None:
        return Answer(read_tensors(header["outputs"], body), int(header["compute_ns"]))
    message = str(header["message"])
    if kind == "refused":
        found = {key: str(header[key]) for key in ("operator", "node", "tensor") if key in header}
        return InferenceRefused(message, **found)
    return InferenceExhausted("answer" if kind == "too_large" else "memory", message)
