"""A model that is loaded, or is about to be, and the requests that wait for it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from blobhub_server.background import Rounds
from blobhub_server.errors import BlobHubError
from blobhub_server.onnx.inference.batch import (
    NotByRows,
    Request,
    RequestAnswer,
    answer_room,
    encode_batch,
    make_request,
    split_answer,
)
from blobhub_server.onnx.inference.errors import (
    InferenceExhausted,
    InferenceQueueFull,
    InferenceRefused,
    ModelResting,
)
from blobhub_server.onnx.inference.limits import EngineLimits
from blobhub_server.onnx.inference.process import Answer, ModelProcess, ProcessEnded
from blobhub_server.onnx.inference.statistics import Statistics
from blobhub_server.onnx.inference.tensor import Tensor
from blobhub_server.turnstile import Party

BATCHES_AHEAD = 2
"""How many batches the process has: while it computes one, the next is there."""


class ServedModel:
    """Queues requests by their callers, who go round, and hands them to the process, together where they may be."""

    def __init__(self, limits: EngineLimits, statistics: Statistics, *, batching: bool) -> None:
        """Without `batching` requests are never put together, whatever the model says of itself."""
        self._limits = limits
        self._statistics = statistics
        self._process: ModelProcess | None = None
        self._queue: Rounds[Request] = Rounds(lambda each: each.party[0], lambda each: each.party[1])
        self._first: deque[Request] = deque()
        self._queued_bytes = 0
        self._pumps = False
        self._rest_seconds = limits.min_rest_seconds
        self.batching = batching
        self.last_used = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for it."""
        return not self._queue and not self._first and self._process is not None and not self._process.asked

    @property
    def process(self) -> ModelProcess | None:
        """Its process, once the model is loaded."""
        return self._process

    def begin(self, process: ModelProcess) -> None:
        """Answer with a process that has loaded the model."""
        self._process = process
        self.batching = self.batching and process.batchable
        self._pump()

    def fail(self, error: BlobHubError) -> None:
        """Tell all who wait that there is no answer."""
        for request in [*self._first, *self._queue.clear()]:
            if not request.future.done():
                request.future.set_exception(error)
        self._first.clear()
        self._queued_bytes = 0

    def rest(self, cause: BlobHubError, seconds: float) -> None:
        """Tell all who wait that the model has ended its process, and is loaded again after so many seconds."""
        self._rest_seconds = seconds
        self.fail(ModelResting(cause.message, seconds))

    async def answer(
        self, inputs: Sequence[Tensor], outputs: tuple[str, ...], party: Party, max_answer_bytes: int
    ) -> RequestAnswer:
        """The answer to a request that the signature allows. Raises InferenceError, and what loading the model raises.

        A request whose caller is cancelled is not computed any more, unless it is being computed.
        """
        future: asyncio.Future[RequestAnswer] = asyncio.get_running_loop().create_future()
        request = make_request(inputs, outputs, party, future, time.perf_counter_ns(), max_answer_bytes)
        self._queue.append(request)
        self._queued_bytes += request.size_bytes
        while len(self._queue) > self._limits.max_queued or (
            self._queued_bytes > self._limits.max_queued_bytes and len(self._queue) > 1
        ):
            self._refuse_one()
        self._pump_soon()
        try:
            return await future
        except asyncio.CancelledError:
            self._drop(request)
            raise

    def _refuse_one(self) -> None:
        refused = self._queue.pop_of_most()
        self._queued_bytes -= refused.size_bytes
        if not refused.future.done():
            refused.future.set_exception(InferenceQueueFull())

    def _drop(self, request: Request) -> None:
        with suppress(KeyError, ValueError):
            self._queue.remove(request)
            self._queued_bytes -= request.size_bytes

    def _pump_soon(self) -> None:
        """Hand over what waits once the requests that have arrived with this one are there, too."""
        if not self._pumps:
            self._pumps = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Hand over what waits, as far as the process is to have it."""
        self._pumps = False
        self.last_used = time.monotonic()
        while self._process is not None and self._process.is_open and self._process.asked < BATCHES_AHEAD:
            batch = self._next_batch()
            if not batch:
                return
            now = time.perf_counter_ns()
            asked = self._process.ask(encode_batch(batch), len(batch), answer_room(batch))
            asked.add_done_callback(lambda done, batch=batch, now=now: self._on_answer(batch, now, done))  # type: ignore[misc]

    def _next(self) -> Request | None:
        """The next request whose caller still waits."""
        while self._first or self._queue:
            if self._first:
                request = self._first.popleft()
            else:
                request = self._queue.popleft()
                self._queued_bytes -= request.size_bytes
            if not request.future.done():
                return request
        return None

    def _next_batch(self) -> list[Request]:
        """What waits and can be answered together; the next request at least, if there is one."""
        first = self._next()
        if first is None:
            return []
        batch, rows, size = [first], first.rows, first.size_bytes
        if not self.batching or first.alone or not first.rows:
            return batch
        while len(batch) < self._limits.max_batch_requests:
            request = self._next()
            if request is None:
                break
            rows, size = rows + request.rows, size + request.size_bytes
            fits = rows <= self._limits.max_batch_rows and size <= self._limits.max_batch_bytes
            if not fits or request.alone or not request.rows or request.likeness != first.likeness:
                self._first.append(request)
                break
            batch.append(request)
        return batch

    def _on_answer(self, batch: list[Request], begin_ns: int, done: asyncio.Future[Answer]) -> None:
        error = done.exception()
        if error is None:
            self._deliver(batch, begin_ns, done.result())
        else:
            self._refuse(batch, error)
        self._pump()

    def _deliver(self, batch: list[Request], begin_ns: int, answer: Answer) -> None:
        try:
            outputs = split_answer(answer.outputs, batch)
        except NotByRows:
            self.batching = False
            self._ask_alone(batch)
            return
        rows = sum(max(each.rows, 1) for each in batch) if self.batching else 1
        self._statistics.count_batch(rows, answer.compute_ns)
        for request, its in zip(batch, outputs, strict=True):
            size = sum(len(each.data) for each in its)
            if request.future.done():
                continue
            if size > request.max_answer_bytes:
                # Of a batch the answer as a whole is bounded, and this one's part of it may be too large.
                most = request.max_answer_bytes
                message = f"the answer has {size} bytes; at most {most} can be sent"
                request.future.set_exception(InferenceExhausted("answer", message))
            else:
                queue_ns = begin_ns - request.queue_time_ns
                request.future.set_result(RequestAnswer(outputs=its, queue_ns=queue_ns, compute_ns=answer.compute_ns))

    def _refuse(self, batch: list[Request], error: BaseException) -> None:
        """Tell the requests of a batch that has no answer; one of several may be the cause, so they are asked alone."""
        if isinstance(error, InferenceRefused | InferenceExhausted) and len(batch) > 1:
            self._ask_alone(batch)
            return
        if isinstance(error, ProcessEnded):
            is_cause = error.at_fault and len(batch) == 1
            error = error.error if is_cause else ModelResting(error.error.message, self._rest_seconds)
        for request in batch:
            if not request.future.done():
                request.future.set_exception(error)

    def _ask_alone(self, batch: Sequence[Request]) -> None:
        for request in batch:
            request.alone = True
        self._first.extend(batch)
