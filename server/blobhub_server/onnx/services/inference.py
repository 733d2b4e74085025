"""InferenceService on the wire."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

from blobhub.v1 import inference_pb2 as pb

from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.errors import InvalidValue
from blobhub_server.onnx.inference.limits import ENVELOPE_BYTES
from blobhub_server.onnx.inference.statistics import Statistics
from blobhub_server.onnx.predictions import Askable, Predictions
from blobhub_server.onnx.services.tensors import convert, from_protos, to_protos
from blobhub_server.rpc.port import MAX_MESSAGE_BYTES
from blobhub_server.rpc.wire import stamp, to_duration
from blobhub_server.turnstile import Party, off_loop

AHEAD = 8
"""How many requests of a stream are computed before the first of them is answered."""

Request = pb.InferRequest | pb.StreamInferRequest


class InferenceService:
    """Asks models."""

    def __init__(self, host: Host, predictions: Predictions, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """`max_message_bytes` is what the port takes and gives."""
        self._host = host
        self._predictions = predictions
        self._max_message_bytes = max_message_bytes

    async def Infer(self, request: pb.InferRequest, call: Call[RevisionView]) -> pb.InferResponse:
        model = await self._predictions.find(call.resource, request.revision, call.caller.party)
        outputs = await self._ask(model, request, call.caller.party)
        return pb.InferResponse(outputs=outputs, model_digest=model.digest)

    async def StreamInfer(
        self, requests: AsyncIterator[pb.StreamInferRequest], call: Call[RevisionView]
    ) -> AsyncIterator[pb.StreamInferResponse]:
        first = await anext(requests)
        party = call.caller.party
        model = await self._predictions.find(call.resource, first.revision, party)
        pending: deque[asyncio.Task[pb.StreamInferResponse]] = deque()
        room = asyncio.Semaphore(AHEAD)
        arrived = asyncio.Event()
        reading = asyncio.create_task(self._read(model, first, requests, party, pending, room, arrived))
        reading.add_done_callback(lambda _: arrived.set())
        try:
            while True:
                while pending:
                    yield await pending[0]
                    pending.popleft()
                    room.release()
                if reading.done():
                    break
                arrived.clear()
                await arrived.wait()
            await reading
        finally:
            await _cancel([reading, *pending])

    async def GetInferenceStatistics(
        self, request: pb.GetInferenceStatisticsRequest, call: Call[RevisionView]
    ) -> pb.GetInferenceStatisticsResponse:
        model = await self._predictions.find(call.resource, request.revision, call.caller.party)
        key = model.stored.key
        statistics, loaded = self._predictions.engine.statistics(*key), self._predictions.engine.is_loaded(*key)
        return pb.GetInferenceStatisticsResponse(statistics=_to_proto(statistics, model.digest, loaded=loaded))

    async def _read(
        self,
        model: Askable,
        first: pb.StreamInferRequest,
        others: AsyncIterator[pb.StreamInferRequest],
        party: Party,
        pending: deque[asyncio.Task[pb.StreamInferResponse]],
        room: asyncio.Semaphore,
        arrived: asyncio.Event,
    ) -> None:
        """Begin to answer the requests of a stream as they come. Raises InvalidValue, and what reading them raises."""
        request = first
        while True:
            await room.acquire()
            pending.append(asyncio.create_task(self._answer(model, request, party)))
            arrived.set()
            try:
                request = await anext(others)
            except StopAsyncIteration:
                return
            if request.revision:
                raise InvalidValue("revision", "only the first message names the revision")

    async def _answer(self, model: Askable, request: pb.StreamInferRequest, party: Party) -> pb.StreamInferResponse:
        outputs = await self._ask(model, request, party)
        return pb.StreamInferResponse(outputs=outputs, model_digest=model.digest, tag=request.tag)

    async def _ask(self, model: Askable, request: Request, party: Party) -> list[pb.InferenceTensor]:
        """The outputs for a request's inputs. Many items are converted beside the loop."""
        inputs = await off_loop(request.ByteSize(), party, partial(from_protos, request.inputs))
        most = self._max_message_bytes - ENVELOPE_BYTES
        answer = await self._predictions.ask(model, inputs, request.outputs, party, most)
        return await convert(answer.outputs, partial(to_protos, answer.outputs), most, party, raw=request.raw_outputs)


async def _cancel(tasks: list[asyncio.Task[pb.StreamInferResponse] | asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # or asyncio would log it; the caller was told of the first one


def _to_proto(statistics: Statistics, digest: str, *, loaded: bool) -> pb.InferenceStatistics:
    made = pb.InferenceStatistics(
        model_digest=digest,
        loaded=loaded,
        request_count=statistics.request_count,
        row_count=statistics.row_count,
        execution_count=statistics.execution_count,
        queue_duration=to_duration(statistics.queue_ns / 1e9),
        compute_duration=to_duration(statistics.compute_ns / 1e9),
        total_duration=to_duration(statistics.total_ns / 1e9),
        failures=[pb.InferenceFailure(reason=each, count=count) for each, count in sorted(statistics.failures.items())],
        batches=[
            pb.InferenceBatch(maximum_rows=rows, count=count, compute_duration=to_duration(took / 1e9))
            for rows, (count, took) in sorted(statistics.batches.items())
        ],
    )
    if statistics.last_request_ms:
        made.last_request_time.CopyFrom(stamp(statistics.last_request_ms / 1e3))
    return made
