"""`blobhub metadata`: records of keys and values on blobs and revisions."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import metadata_pb2
from blobhub_client import set_value
from typer import Argument, Option

from blobhub_cli.command import EtagOption, LimitOption, Noun
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import json_or_text

noun = Noun("metadata", "Metadata: keys and JSON values on a blob or a revision.")
COLUMNS = ("key", "value", "description", "update_time")
RESOLVED_COLUMNS = ("KEY=record.key", "VALUE=record.value", "source")

Parent = Annotated[str, Argument(help="A blob (`acme/pipeline`) or a revision (`acme/pipeline@3`), or an id.")]
Key = Annotated[str, Argument(help="The key: letters, digits and . _ / -")]
Description = Annotated[str | None, Option("--description", help="What it says, in words.")]


@noun.command(
    "create",
    "blobhub metadata create acme/pipeline team/owner ann",
    "blobhub metadata create acme/pipeline@1 scores '{\"f1\": 0.93}'",
)
async def create(
    hub: Hub,
    parent: Parent,
    key: Key,
    value: Annotated[str, Argument(help="JSON, or text; @file for what is in a file.")],
    description: Description = None,
) -> None:
    """Create a record."""
    request = metadata_pb2.CreateMetadataRequest(parent=parent, key=key, description=description or "")
    set_value(request, json_or_text(value))
    hub.out.record((await hub.call(hub.client.metadata.CreateMetadata, request)).record)


@noun.command("get", "blobhub metadata get acme/pipeline team/owner")
async def get(hub: Hub, parent: Parent, key: Key) -> None:
    """Show a record."""
    request = metadata_pb2.GetMetadataRequest(parent=parent, key=key)
    hub.out.record((await hub.call(hub.client.metadata.GetMetadata, request)).record)


@noun.command("list", "blobhub metadata list acme/pipeline --prefix team/")
async def list_all(
    hub: Hub,
    parent: Parent,
    prefix: Annotated[str, Option("--prefix", help="What the keys begin with.")] = "",
    limit: LimitOption = 100,
) -> None:
    """List the records of a blob or a revision."""
    request = metadata_pb2.ListMetadataRequest(parent=parent, key_prefix=prefix)
    await hub.out.table(hub.pages(hub.client.metadata.ListMetadata, request, limit), COLUMNS, limit)


@noun.command("resolve", "blobhub metadata resolve acme/pipeline@1", "blobhub metadata resolve acme/pipeline@1 team/owner")
async def resolve(
    hub: Hub,
    revision: Annotated[str, Argument(help="The revision.")],
    keys: Annotated[list[str] | None, Argument(help="Keys; all, unless given.")] = None,
    prefix: Annotated[str, Option("--prefix", help="What the keys begin with.")] = "",
    limit: LimitOption = 100,
) -> None:
    """Show what holds for a revision: its own records, and those of its blob."""
    request = metadata_pb2.ResolveMetadataRequest(revision=revision, keys=keys or (), key_prefix=prefix)
    await hub.out.table(hub.pages(hub.client.metadata.ResolveMetadata, request, limit), RESOLVED_COLUMNS, limit)


@noun.command("update", "blobhub metadata update acme/pipeline team/owner --value bob")
async def update(
    hub: Hub,
    parent: Parent,
    key: Key,
    value: Annotated[str | None, Option("--value", help="JSON, or text; @file for what is in a file.")] = None,
    description: Description = None,
    etag: EtagOption = "",
) -> None:
    """Change a record: what is given, and nothing else."""
    request = metadata_pb2.UpdateMetadataRequest(parent=parent, key=key, description=description or "", etag=etag)
    if value is not None:
        set_value(request, json_or_text(value))
        request.update_mask.paths.append("value")
    if description is not None:
        request.update_mask.paths.append("description")
    hub.out.record((await hub.call(hub.client.metadata.UpdateMetadata, request)).record)


@noun.command("delete", "blobhub metadata delete acme/pipeline team/owner")
async def delete(hub: Hub, parent: Parent, key: Key, etag: EtagOption = "") -> None:
    """Delete a record."""
    request = metadata_pb2.DeleteMetadataRequest(parent=parent, key=key, etag=etag)
    hub.out.done(await hub.call(hub.client.metadata.DeleteMetadata, request), f"deleted {key}")
