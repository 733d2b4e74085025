"""The demo's model: Magika, which tells the kind of a file by its bytes. It is sent, described and asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

from blobhub.v1 import blob_pb2, inference_pb2, model_pb2, operation_pb2
from blobhub_client import Client
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

FOLDER = Path(str(files("magika"))) / "models" / "standard_v3_3"
CHUNK_BYTES = 256 << 10
DRAFT = "acme/kinds@draft"

ENDS_BYTES, PADDING = 1024, 256
"""The model takes the first bytes of a file and the last ones, so many each, and this number for those that it has not."""


async def upload(hub: Client, console: Console) -> model_pb2.Model:
    """Send the model in a stream, and wait until it is processed. Exits when it is refused."""
    await hub.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias="kinds", type="blobhub.model.onnx"))
    content = (FOLDER / "model.onnx").read_bytes()
    columns = TextColumn("  [bold]uploading [/]"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console) as progress:
        sent = progress.add_task("", total=len(content))

        async def messages() -> AsyncIterator[model_pb2.UploadModelRequest]:
            yield model_pb2.UploadModelRequest(revision=DRAFT, size=len(content))
            for start in range(0, len(content), CHUNK_BYTES):
                chunk = content[start : start + CHUNK_BYTES]
                yield model_pb2.UploadModelRequest(chunk=chunk)
                progress.advance(sent, len(chunk))

        begun = (await hub.models.UploadModel(messages())).operation
    operation = begun
    async for operation in hub.watch_operation(begun.id):
        state = operation_pb2.OperationState.Name(operation.state).removeprefix("OPERATION_STATE_").lower()
        console.print(f"  [bold]{'operation':<10}[/] {operation.kind} is {state}  {operation.progress.stage}")
    if operation.HasField("error"):
        raise SystemExit(f"demo: the model was refused: {operation.error.message}")
    processed = model_pb2.ProcessedModel()
    operation.response.Unpack(processed)
    return processed.model


def describe(model: model_pb2.Model) -> str:
    """What goes into a model, and what comes out of it."""
    ends = (", ".join(map(_tensor, each)) for each in (model.inputs, model.outputs))
    return f"{' → '.join(ends)}; {model.node_count} nodes, {model.parameter_count:,} parameters, by {model.producer_name}"


def _tensor(tensor: model_pb2.ModelTensor) -> str:
    return f"{tensor.name}: {tensor.datatype}{list(tensor.shape.dimensions)}"


async def kind_of(hub: Client, content: bytes) -> str:
    """What kind of file some bytes are, and how sure the model is."""
    first = content[:4096].lstrip()[:ENDS_BYTES]
    last = content[-4096:].rstrip()[-ENDS_BYTES:]
    missing = [PADDING] * (ENDS_BYTES - len(first)), [PADDING] * (ENDS_BYTES - len(last))
    numbers = [*first, *missing[0], *missing[1], *last]
    asked = inference_pb2.InferenceTensor(name="bytes", datatype="INT32", shape=[1, 2 * ENDS_BYTES], integers=numbers)
    answer = await hub.inference.Infer(inference_pb2.InferRequest(revision=DRAFT, inputs=[asked]))
    (scores,) = answer.outputs
    labels = json.loads((FOLDER / "config.min.json").read_text())["target_labels_space"]
    score, label = max(zip(scores.floats, labels, strict=True))
    return f"{label}, with a score of {score:.3f}"
