"""`blobhub blob`: blobs."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import blob_pb2, blob_type_pb2
from typer import Argument, Option

from blobhub_cli.command import CascadeOption, EtagOption, LimitOption, Noun, YesOption
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import split_last, word_number
from blobhub_cli.nouns.asking import confirm_cascade

noun = Noun("blob", "Blobs: typed, versioned units of data, each in an organization.")
COLUMNS = ("alias", "type", "visibility", "description", "update_time", "id")
VISIBILITY = blob_pb2.Visibility.DESCRIPTOR
SHORT_TYPES = {
    "workflow": "blobhub.compute.workflow",
    "scheduler": "blobhub.compute.scheduler",
    "onnx": "blobhub.model.onnx",
}
"""Types that have a short name here."""

Blob = Annotated[str, Argument(help="`acme/pipeline`, or its id.")]
Description = Annotated[str | None, Option("--description", help="What it is for, in words.")]
Visibility = Annotated[str | None, Option("--visibility", help="private or public.")]


@noun.command("create", "blobhub blob create acme/pipeline", "blobhub blob create acme/kinds --type onnx")
async def create(
    hub: Hub,
    blob: Annotated[str, Argument(help="Its organization and a new alias: `acme/pipeline`.")],
    kind: Annotated[str, Option("--type", "-t", help="workflow, scheduler, onnx, or a type's whole name.")] = "workflow",
    description: Description = None,
    visibility: Visibility = None,
) -> None:
    """Create a blob, with an empty draft."""
    organization, alias = split_last(blob, "ORGANIZATION/ALIAS")
    request = blob_pb2.CreateBlobRequest(
        organization=organization,
        alias=alias,
        type=SHORT_TYPES.get(kind, kind),
        description=description or "",
        visibility=word_number(VISIBILITY, visibility, "visibility"),
    )
    hub.out.record((await hub.call(hub.client.blobs.CreateBlob, request)).blob)


@noun.command("get", "blobhub blob get acme/pipeline")
async def get(hub: Hub, blob: Blob) -> None:
    """Show a blob."""
    hub.out.record((await hub.call(hub.client.blobs.GetBlob, blob_pb2.GetBlobRequest(blob=blob))).blob)


@noun.command("list", "blobhub blob list acme", "blobhub blob list acme --type onnx --json")
async def list_all(
    hub: Hub,
    organization: Annotated[str, Argument(help="The organization.")],
    kind: Annotated[str, Option("--type", "-t", help="Those of one type.")] = "",
    prefix: Annotated[str, Option("--prefix", help="What the aliases begin with.")] = "",
    visibility: Visibility = None,
    order_by: Annotated[str, Option("--order-by", help="alias, create_time or update_time, each also with ` desc`.")] = "",
    limit: LimitOption = 100,
) -> None:
    """List the blobs of an organization."""
    request = blob_pb2.ListBlobsRequest(
        organization=organization,
        type=SHORT_TYPES.get(kind, kind),
        alias_prefix=prefix,
        order_by=order_by,
        visibility=word_number(VISIBILITY, visibility, "visibility"),
    )
    await hub.out.table(hub.pages(hub.client.blobs.ListBlobs, request, limit), COLUMNS, limit)


@noun.command(
    "update",
    "blobhub blob update acme/pipeline --description 'Summaries'",
    "blobhub blob update acme/pipeline --alias summaries",
)
async def update(
    hub: Hub,
    blob: Blob,
    alias: Annotated[str | None, Option("--alias", help="Rename it.")] = None,
    description: Description = None,
    visibility: Visibility = None,
    default_revision: Annotated[
        str | None, Option("--default-revision", help="The revision that others get: `3`, or an id.")
    ] = None,
    etag: EtagOption = "",
) -> None:
    """Change a blob: what is given, and nothing else."""
    changes = {
        "alias": alias,
        "description": description,
        "visibility": visibility,
        "default_revision": default_revision,
    }
    request = blob_pb2.UpdateBlobRequest(
        blob=blob,
        alias=alias or "",
        description=description or "",
        visibility=word_number(VISIBILITY, visibility, "visibility"),
        default_revision=default_revision or "",
        etag=etag,
    )
    request.update_mask.paths.extend(name for name, value in changes.items() if value is not None)
    hub.out.record((await hub.call(hub.client.blobs.UpdateBlob, request)).blob)


@noun.command("delete", "blobhub blob delete acme/pipeline", "blobhub blob delete acme/pipeline --cascade --yes")
async def delete(
    hub: Hub, blob: Blob, cascade: CascadeOption = False, yes: YesOption = False, etag: EtagOption = ""
) -> None:
    """Delete a blob."""
    confirm_cascade(f"blob {blob}", cascade=cascade, yes=yes)
    request = blob_pb2.DeleteBlobRequest(blob=blob, cascade=cascade, etag=etag)
    hub.out.done(await hub.call(hub.client.blobs.DeleteBlob, request), f"deleted {blob}")


@noun.command("types", "blobhub blob types")
async def types(hub: Hub) -> None:
    """List the types of blobs that the server has."""
    answer = await hub.call(hub.client.blob_types.ListBlobTypes, blob_type_pb2.ListBlobTypesRequest())
    hub.out.messages(answer.blob_types, ("name", "title"))
