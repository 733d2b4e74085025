"""The Open Inference Protocol on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from operator import attrgetter
from typing import Any

from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.listing import ListedBlob
from blobhub_server.errors import InvalidValue
from blobhub_server.onnx.errors import TYPE
from blobhub_server.onnx.inference.limits import ENVELOPE_BYTES
from blobhub_server.onnx.inference.signature import Signature
from blobhub_server.onnx.inference.tensor import BYTES, Tensor, item_count
from blobhub_server.onnx.inference.values import unpack
from blobhub_server.onnx.oip import open_inference_pb2 as pb
from blobhub_server.onnx.predictions import Askable, Predictions
from blobhub_server.onnx.processing.report import TensorSpec
from blobhub_server.onnx.services.tensors import convert, from_items
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.port import MAX_MESSAGE_BYTES
from blobhub_server.turnstile import off_loop

PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
EXTENSIONS = ("model_configuration", "statistics")
READY, UNAVAILABLE = "READY", "UNAVAILABLE"
MAX_INDEX = 1_000
"""How many models an answer of RepositoryIndex has at most."""
REFUSED_PARAMETERS = ("shared_memory_region", "classification")
"""What would change the meaning of a request, and is not done."""
FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""The field of the contents that has the items of a datatype; for FP16 and BF16 there is none."""


class OpenInferenceService:
    """Asks models by the protocol that other inference servers speak."""

    def __init__(self, host: Host, predictions: Predictions, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """`max_message_bytes` is what the port takes and gives."""
        self._max_message_bytes = max_message_bytes
        self._host = host
        self._predictions = predictions

    async def ServerLive(self, request: pb.ServerLiveRequest, call: Call[None]) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, call: Call[None]) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, call: Call[None]) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="blobhub", version=version("blobhub-server"), extensions=EXTENSIONS)

    async def ModelReady(self, request: pb.ModelReadyRequest, call: Call[RevisionView]) -> pb.ModelReadyResponse:
        await self._find(call)
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, call: Call[RevisionView]) -> pb.ModelMetadataResponse:
        signature = (await self._find(call)).stored.signature
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[request.version] if request.version else [],
            platform=PLATFORM,
            inputs=map(_metadata, signature.inputs),
            outputs=map(_metadata, signature.outputs),
        )

    async def ModelConfig(self, request: pb.ModelConfigRequest, call: Call[RevisionView]) -> pb.ModelConfigResponse:
        signature = (await self._find(call)).stored.signature
        return pb.ModelConfigResponse(config=_config(request.name, signature))

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, call: Call[RevisionView]
    ) -> pb.ModelStatisticsResponse:
        model = await self._find(call)
        counted = self._predictions.engine.statistics(*model.stored.key)
        answered = counted.request_count
        times = pb.InferStatistics(
            success=_duration(answered, counted.total_ns),
            fail=_duration(counted.failures.total(), counted.failed_ns),
            queue=_duration(answered, counted.queue_ns),
            compute_infer=_duration(answered, counted.compute_ns),
        )
        batches = [
            pb.InferBatchStatistics(batch_size=rows, compute_infer=_duration(count, took))
            for rows, (count, took) in sorted(counted.batches.items())
        ]
        stats = pb.ModelStatistics(
            name=request.name,
            version=request.version,
            last_inference=counted.last_request_ms,
            inference_count=counted.row_count,
            execution_count=counted.execution_count,
            inference_stats=times,
            batch_stats=batches,
        )
        return pb.ModelStatisticsResponse(model_stats=[stats])

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, call: Call[None]) -> pb.RepositoryIndexResponse:
        if not 0 <= request.page_size <= MAX_INDEX:
            raise InvalidValue("page_size", f"has to be from 0 to {MAX_INDEX}")
        page = Page.parse(request, call.caller.identity, request.repository_name, default_size=MAX_INDEX)
        found = await self._host.blobs.visible_to(
            call.caller, TYPE, organization=request.repository_name, after=page.after, limit=page.limit + 1
        )
        models, token = await page.fill(found, attrgetter("key"), _index)
        if request.ready:
            models = [each for each in models if each.state == READY]
        return pb.RepositoryIndexResponse(models=models, next_page_token=token)

    async def ModelInfer(self, request: pb.ModelInferRequest, call: Call[RevisionView]) -> pb.ModelInferResponse:
        party = call.caller.party
        model = await self._find(call)
        _check_parameters("inputs", request.inputs)
        _check_parameters("outputs", request.outputs)
        inputs = await off_loop(request.ByteSize(), party, partial(_inputs, request))
        most = self._max_message_bytes - ENVELOPE_BYTES
        answer = await self._predictions.ask(model, inputs, [each.name for each in request.outputs], party, most)
        raw = bool(request.raw_input_contents) or any(each.datatype not in FIELDS for each in answer.outputs)
        (response,) = await convert(answer.outputs, partial(_response, request, answer.outputs), most, party, raw=raw)
        return response

    async def _find(self, call: Call[RevisionView]) -> Askable:
        return await self._predictions.find(call.resource, call.reference[1], call.caller.party)


def _check_parameters(field: str, tensors: Iterable[Any]) -> None:
    """Raise InvalidValue for a parameter that cannot be ignored."""
    for number, tensor in enumerate(tensors):
        for name in REFUSED_PARAMETERS:
            if name in tensor.parameters:
                raise InvalidValue(f"{field}[{number}].parameters", f"`{name}` is not supported")


def _inputs(request: pb.ModelInferRequest) -> list[Tensor]:
    """The inputs of a request. Raises InvalidValue, InvalidTensor."""
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        message = f"has {len(raw)} items for {len(request.inputs)} inputs; send the contents of all inputs in it, or of none"
        raise InvalidValue("raw_input_contents", message)
    return [
        from_items(each.name, each.datatype, each.shape, _given(each, raw[number : number + 1]), FIELDS)
        for number, each in enumerate(request.inputs)
    ]


def _given(tensor: pb.ModelInferRequest.InferInputTensor, raw: Sequence[bytes]) -> Mapping[str, Any]:
    """The items of an input, by the field that they are in."""
    given = {field.name: items for field, items in tensor.contents.ListFields()}
    return given | {"raw": raw[0]} if raw else given


def _response(request: pb.ModelInferRequest, outputs: Sequence[Tensor], *, raw: bool) -> Sequence[pb.ModelInferResponse]:
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=request.model_version, id=request.id)
    for each in outputs:
        made = response.outputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
        if raw:
            response.raw_output_contents.append(bytes(each.data))
        else:
            getattr(made.contents, FIELDS[each.datatype]).extend(unpack(each.datatype, each.data, item_count(each.shape)))
    return [response]


def _index(blob: ListedBlob) -> pb.RepositoryIndexResponse.ModelIndex:
    lacks = ""
    if not blob.entries:
        lacks = "no revision is committed" if blob.entries is None else "its default revision has no model"
    return pb.RepositoryIndexResponse.ModelIndex(
        name=blob.reference,
        version=str(blob.number or ""),
        state=UNAVAILABLE if lacks else READY,
        reason=lacks,
    )


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape or ())


def _config(name: str, signature: Signature) -> pb.ModelConfig:
    return pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        backend=BACKEND,
        input=[pb.ModelInput(name=each.name, data_type=_type(each), dims=each.shape or ()) for each in signature.inputs],
        output=[pb.ModelOutput(name=each.name, data_type=_type(each), dims=each.shape or ()) for each in signature.outputs],
    )


def _type(spec: TensorSpec) -> pb.DataType.ValueType:
    if not spec.datatype:
        return pb.TYPE_INVALID
    return pb.DataType.Value("TYPE_STRING" if spec.datatype == BYTES else f"TYPE_{spec.datatype}")


def _duration(count: int, nanoseconds: int) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=nanoseconds)
