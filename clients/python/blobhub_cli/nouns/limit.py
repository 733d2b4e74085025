"""`blobhub limit`: how much an organization or a blob may hold."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import limit_pb2
from typer import Argument

from blobhub_cli.command import EtagOption, Noun
from blobhub_cli.hub import Hub

noun = Noun("limit", "Limits: how much an organization or a blob may hold, and how much it does.")
COLUMNS = ("name", "value", "held", "source", "description")

Parent = Annotated[str, Argument(help="An organization (`acme`) or a blob (`acme/pipeline`).")]
Name = Annotated[str, Argument(help="The limit's name.")]


@noun.command("list", "blobhub limit list acme", "blobhub limit list acme/pipeline --json")
async def list_all(hub: Hub, parent: Parent) -> None:
    """List the limits of an organization or a blob."""
    answer = await hub.call(hub.client.limits.GetLimits, limit_pb2.GetLimitsRequest(parent=parent))
    hub.out.messages(answer.limits, COLUMNS)


@noun.command("set", "blobhub limit set acme blobs 500")
async def set_value(
    hub: Hub,
    parent: Parent,
    name: Name,
    value: Annotated[int, Argument(help="The most there can be.")],
    etag: EtagOption = "",
) -> None:
    """Change a limit."""
    request = limit_pb2.UpdateLimitRequest(parent=parent, name=name, value=value, etag=etag)
    request.update_mask.paths.append("value")
    hub.out.record((await hub.call(hub.client.limits.UpdateLimit, request)).limit)


@noun.command("reset", "blobhub limit reset acme blobs")
async def reset(hub: Hub, parent: Parent, name: Name, etag: EtagOption = "") -> None:
    """Bring a limit back to what it is by default."""
    request = limit_pb2.UpdateLimitRequest(parent=parent, name=name, etag=etag)
    request.update_mask.paths.append("value")
    hub.out.record((await hub.call(hub.client.limits.UpdateLimit, request)).limit)
