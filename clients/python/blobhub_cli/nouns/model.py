"""`blobhub model`: ONNX models: up, down, what they are, and what they answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

from blobhub.v1 import inference_pb2, model_pb2
from blobhub_client import TransferError
from blobhub_client.models import Progress
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as ProgressBar
from typer import Argument, Option

from blobhub_cli.command import EtagOption, Noun
from blobhub_cli.failures import CommandError
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import word_number
from blobhub_cli.nouns.operation import follow_operation
from blobhub_cli.tensors import FORM, read_tensor, to_plain

noun = Noun("model", "ONNX models: send and fetch them, see what they are, ask them.")
GRAPH = model_pb2.ModelGraphFormat.DESCRIPTOR

Revision = Annotated[str, Argument(help="`acme/kinds@draft`, `acme/kinds@3`, or an id.")]


@noun.command("upload", "blobhub model upload model.onnx acme/kinds@draft")
async def upload(
    hub: Hub,
    file: Annotated[str, Argument(help="model.onnx, or a model.tar.gz with it.")],
    revision: Revision,
    create_only: Annotated[bool, Option("--create-only", help="Refuse to replace one.")] = False,
    etag: EtagOption = "",
) -> int:
    """Send a model to a draft, and watch it being checked. Exit code 8 where it is not taken."""
    form = model_pb2.MODEL_FORM_TAR_GZ if file.endswith((".tar.gz", ".tgz")) else model_pb2.MODEL_FORM_ONNX
    first = model_pb2.UploadModelRequest(revision=revision, form=form, create_only=create_only, etag=etag)
    with _opened(file, "rb") as content, _bar(hub, f"sending {Path(file).name}") as moved:
        operation = await hub.client.upload_model(first, content, progress=moved)
    return await follow_operation(hub, operation.id)


@noun.command("download", "blobhub model download acme/kinds@3 --to model.onnx")
async def download(
    hub: Hub,
    revision: Revision,
    to: Annotated[str, Option("--to", "-o", help="The file to write.")] = "model.onnx",
    artifact: Annotated[str, Option("--artifact", help="Another file of the model, such as model.json.")] = "",
) -> None:
    """Fetch a model, and compare its digest."""
    request = model_pb2.DownloadModelRequest(revision=revision, artifact=artifact)
    try:
        with _arriving(to) as content, _bar(hub, f"fetching {Path(to).name}") as moved:
            about = await hub.client.download_model(request, content, progress=moved)
    except TransferError as error:
        raise CommandError(f"{error}; it is left in {to}.part", next_step="fetch it again") from error
    hub.out.done(about, f"{to}: {about.size:,} bytes, SHA-256 {about.digest}")


@contextmanager
def _arriving(path: str) -> Iterator[IO[bytes]]:
    """A file that has its name once all of it is there; nothing is left of one that has not begun to come."""
    part = Path(f"{path}.part")
    try:
        with _opened(str(part), "wb") as file:
            yield file
        part.replace(path)
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()


@contextmanager
def _opened(path: str, mode: str) -> Iterator[IO[bytes]]:
    try:
        with Path(path).open(mode) as file:
            yield file
    except OSError as error:
        raise CommandError(f"cannot open {path}: {error.strerror}") from error


@contextmanager
def _bar(hub: Hub, what: str) -> Iterator[Progress]:
    """A bar that grows in a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    is_shown = hub.out.errors.is_terminal and not hub.out.as_json
    with ProgressBar(*columns, console=hub.out.errors, disable=not is_shown) as bar:
        task = bar.add_task(what, total=None)
        yield lambda moved, size: bar.update(task, completed=moved, total=size)


@noun.command("describe", "blobhub model describe acme/kinds@3")
async def describe(hub: Hub, revision: Revision) -> None:
    """Show what a model takes, what it gives, and what it is made of."""
    model = (await hub.call(hub.client.models.GetModel, model_pb2.GetModelRequest(revision=revision))).model
    if hub.out.as_json:
        hub.out.record(model)
        return
    rows = [
        [way, tensor.name, tensor.datatype or tensor.type, str(list(tensor.shape.dimensions))]
        for way, tensors in (("input", model.inputs), ("output", model.outputs))
        for tensor in tensors
    ]
    hub.out.rows(["", "NAME", "DATATYPE", "SHAPE"], rows)
    hub.out.line()
    opsets = ", ".join(f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in model.opsets)
    producer = f"{model.producer_name} {model.producer_version}".strip()
    numbers = {"nodes": f"{model.node_count:,}", "parameters": f"{model.parameter_count:,}", "bytes": f"{model.size:,}"}
    hub.out.pairs(numbers | {"opsets": opsets, "producer": producer, "digest": model.digest})


@noun.command("graph", "blobhub model graph acme/kinds@3 --format mermaid")
async def graph(
    hub: Hub, revision: Revision, form: Annotated[str, Option("--format", help="dot or mermaid.")] = "mermaid"
) -> None:
    """Draw a model's graph."""
    request = model_pb2.GetModelGraphRequest(revision=revision, format=word_number(GRAPH, form, "format"))
    answer = await hub.call(hub.client.models.GetModelGraph, request)
    hub.out.done(answer, answer.text)


@noun.command(
    "infer", "blobhub model infer acme/scorer@3 -i x:=[[1,2,3]]", "blobhub model infer acme/scorer@3 -i x=@x.npy --json"
)
async def infer(
    hub: Hub,
    revision: Revision,
    given: Annotated[list[str], Option("--input", "-i", help=f"An input: {FORM}. Repeatable.")],
    outputs: Annotated[list[str] | None, Option("--output", help="An output to answer; all, unless given.")] = None,
) -> None:
    """Ask a model, and print its outputs as JSON."""
    model = (await hub.call(hub.client.models.GetModel, model_pb2.GetModelRequest(revision=revision))).model
    datatypes = {tensor.name: tensor.datatype for tensor in model.inputs}
    tensors = [read_tensor(each, datatypes) for each in given]
    request = inference_pb2.InferRequest(revision=revision, inputs=tensors, outputs=outputs or ())
    answer = await hub.call(hub.client.inference.Infer, request)
    for tensor in answer.outputs:
        made = to_plain(tensor)
        if hub.out.as_json:
            hub.out.json(made)
        else:
            hub.out.line(f"{made['name']}: {made['datatype']}{made['shape']}", "bold")
            hub.out.json(made["value"])


@noun.command("delete", "blobhub model delete acme/kinds@draft")
async def delete(hub: Hub, revision: Revision, etag: EtagOption = "") -> None:
    """Remove the model from a draft."""
    request = model_pb2.DeleteModelRequest(revision=revision, etag=etag)
    hub.out.done(await hub.call(hub.client.models.DeleteModel, request), f"deleted the model of {revision}")
