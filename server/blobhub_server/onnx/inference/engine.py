"""Answers requests to models. Each model that is in use has a process of its own; those that are not make room."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from blobhub_server.background import in_background
from blobhub_server.errors import BlobHubError, ContentLost, Overloaded, StorageUnavailable
from blobhub_server.onnx.inference.batch import RequestAnswer
from blobhub_server.onnx.inference.errors import InferenceMemoryFull, ModelNotLoaded, ModelResting
from blobhub_server.onnx.inference.limits import EngineLimits
from blobhub_server.onnx.inference.process import ModelProcess
from blobhub_server.onnx.inference.served_model import ServedModel
from blobhub_server.onnx.inference.signature import Signature
from blobhub_server.onnx.inference.statistics import Statistics
from blobhub_server.onnx.inference.tensor import BYTES, Tensor
from blobhub_server.onnx.runtime import require_extra
from blobhub_server.turnstile import Party, off_loop

UPKEEP_SECONDS = 5.0
MAX_REMEMBERED = 1_000
"""Of how many models statistics are kept, and which of them rest."""
BASE_BYTES = 64 << 20
"""What a process takes for itself, as long as nobody has measured."""
MODEL_FACTOR = 3
"""How many times its size a model takes while it is loaded."""
RESTS_WELL = 10
"""A model that has been well for so many times its last rest begins with the shortest one again."""

_NOT_ITS_FAULT = (StorageUnavailable, ContentLost, Overloaded)
"""Why a model is not loaded that is tried again at the next request: it has ended no process."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model to ask: whose it is, its bytes, and what it takes and gives.

    Models of different organizations share no process, even with the same bytes.
    """

    organization_id: str
    digest: str
    size: int
    signature: Signature
    read: Callable[[], AsyncIterator[bytes]]

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.organization_id, self.digest


@dataclass(frozen=True, slots=True)
class _Rest:
    """A model that has ended its process is not loaded before a time."""

    until: float
    seconds: float
    cause: str
    batching: bool


class InferenceEngine:
    """Answers requests to models. It belongs to one event loop."""

    def __init__(self, limits: EngineLimits, now_ms: Callable[[], int]) -> None:
        """`now_ms` gives the time in milliseconds since 1970."""
        self._limits = limits
        self._now_ms = now_ms
        self._models: OrderedDict[Key, ServedModel] = OrderedDict()
        self._expected_bytes: dict[Key, int] = {}
        self._rests: OrderedDict[Key, _Rest] = OrderedDict()
        self._statistics: OrderedDict[Key, Statistics] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger().bind()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """End processes of models that nobody asks, until the block is left; then end all of them."""
        async with in_background(self._keep_up(), "upkeep of models"):
            try:
                yield
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, *map(_end, self._models.values()), return_exceptions=True)
                self._models.clear()

    def statistics(self, organization_id: str, digest: str) -> Statistics:
        """What became of the requests to a model, since it was first asked or was forgotten."""
        return self._statistics.get((organization_id, digest)) or Statistics()

    def is_loaded(self, organization_id: str, digest: str) -> bool:
        """Whether a model has a process that is ready."""
        served = self._models.get((organization_id, digest))
        return served is not None and served.process is not None

    async def infer(
        self,
        model: StoredModel,
        inputs: Sequence[Tensor],
        outputs: Sequence[str],
        party: Party,
        max_answer_bytes: int | None = None,
    ) -> RequestAnswer:
        """The outputs wanted, or all, for these inputs; they have so many bytes at most, unless that is the usual number.
        The model is loaded if it is not.

        Requests of one model wait in a bounded queue, in which callers go round. Raises ExtraMissing, InferenceError, and
        what reading the model raises.
        """
        statistics, start = self._remembered(model.key), time.perf_counter_ns()
        try:
            # The items of texts are gone over one by one.
            text_bytes = sum(len(each.data) for each in inputs if each.datatype == BYTES)
            await off_loop(text_bytes, party, partial(model.signature.check_inputs, inputs))
            names = model.signature.choose_outputs(outputs)
            most = max_answer_bytes or self._limits.process.max_answer_bytes
            answer = await self._serve(model, statistics).answer(inputs, names, party, most)
        except BlobHubError as error:
            statistics.count_failure(error.reason, time.perf_counter_ns() - start)
            raise
        except asyncio.CancelledError:
            statistics.count_failure("CANCELLED", time.perf_counter_ns() - start)
            raise
        statistics.count_answer(
            queue_ns=answer.queue_ns,
            compute_ns=answer.compute_ns,
            total_ns=time.perf_counter_ns() - start,
            now_ms=self._now_ms(),
        )
        return answer

    def _remembered(self, key: Key) -> Statistics:
        found = self._statistics.get(key)
        if found is None:
            found = self._statistics[key] = Statistics()
            if len(self._statistics) > MAX_REMEMBERED:
                self._statistics.popitem(last=False)
        self._statistics.move_to_end(key)
        return found

    def _serve(self, model: StoredModel, statistics: Statistics) -> ServedModel:
        """The model with its queue; it is loaded beside the calls. Raises ModelResting, ExtraMissing,
        InferenceMemoryFull.
        """
        key = model.key
        served = self._models.get(key)
        if served is None:
            rest = self._rests.get(key)
            if rest is not None and rest.until > time.monotonic():
                raise ModelResting(rest.cause, rest.until - time.monotonic())
            require_extra()
            self._make_room(BASE_BYTES + MODEL_FACTOR * model.size)
            served = ServedModel(self._limits, statistics, batching=rest is None or rest.batching)
            self._models[key] = served
            self._expected_bytes[key] = BASE_BYTES + MODEL_FACTOR * model.size
            self._spawn(self._load(model, served))
        self._models.move_to_end(key)
        return served

    async def _load(self, model: StoredModel, served: ServedModel) -> None:
        loaded_at = time.monotonic()

        def on_end(error: BlobHubError, requests: int) -> None:
            self._log.warning("model_ended", digest=model.digest, cause=error.message)
            well = time.monotonic() - loaded_at
            self._forget(model.key, served)
            served.rest(error, self._rest(model.key, error, well, batching=requests <= 1))

        process = ModelProcess(self._limits.process, on_end)
        try:
            await process.start(model.read(), model.size)
        except asyncio.CancelledError:
            served.fail(ModelResting("the server shuts down", 1))
            raise
        except Exception as error:
            failure = error if isinstance(error, BlobHubError) else ModelNotLoaded("its process cannot be started")
            if failure is not error:
                self._log.exception("model_not_started", digest=model.digest)
            self._forget(model.key, served)
            if not isinstance(failure, _NOT_ITS_FAULT):
                self._rest(model.key, failure, 0, batching=True)
            served.fail(failure)
            return
        loaded_at = time.monotonic()
        if self._models.get(model.key) is served:
            self._expected_bytes.pop(model.key, None)
        served.begin(process)

    def _forget(self, key: Key, served: ServedModel) -> None:
        if self._models.get(key) is served:
            del self._models[key]
            self._expected_bytes.pop(key, None)

    def _rest(self, key: Key, error: BlobHubError, well_seconds: float, *, batching: bool) -> float:
        """Have a model rest, for twice as long as the last time unless it has been well for long; return the seconds."""
        last, seconds = self._rests.pop(key, None), self._limits.min_rest_seconds
        if last is not None and well_seconds < RESTS_WELL * last.seconds:
            seconds = min(2 * last.seconds, self._limits.max_rest_seconds)
        batching = batching and (last is None or last.batching)
        self._rests[key] = _Rest(until=time.monotonic() + seconds, seconds=seconds, cause=error.message, batching=batching)
        if len(self._rests) > MAX_REMEMBERED:
            self._rests.popitem(last=False)
        return seconds

    def _make_room(self, wanted_bytes: int) -> None:
        """End idle processes, those first that were asked longest ago. Raises InferenceMemoryFull if that is not enough."""
        idle = [key for key, each in self._models.items() if each.is_idle]
        held = self._held_bytes()
        while self._models and (
            len(self._models) >= self._limits.max_models or held + wanted_bytes > self._limits.max_memory_bytes
        ):
            if not idle:
                raise InferenceMemoryFull
            held -= self._evict(idle.pop(0))

    def _held_bytes(self) -> int:
        return sum(map(self._memory_of, self._models))

    def _memory_of(self, key: Key) -> int:
        process = self._models[key].process
        return self._expected_bytes.get(key, 0) if process is None else process.memory_bytes()

    def _evict(self, key: Key) -> int:
        """End the process of a model; how many bytes it has held."""
        held = self._memory_of(key)
        self._spawn(_end(self._models.pop(key)))
        return held

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_SECONDS)
            self.end_idle()

    def end_idle(self) -> None:
        """End the processes of models that nobody has asked for long, and of more if all together hold too much."""
        before = time.monotonic() - self._limits.idle_seconds
        for key in [key for key, each in self._models.items() if each.is_idle and each.last_used <= before]:
            self._evict(key)
        held = self._held_bytes()
        for key in [key for key, each in self._models.items() if each.is_idle]:
            if held > self._limits.max_memory_bytes and len(self._models) > 1:
                held -= self._evict(key)


async def _end(served: ServedModel) -> None:
    if served.process is not None:
        await served.process.end()
