"""`blobhub org`: organizations."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import blob_pb2, organization_pb2
from typer import Argument, Option

from blobhub_cli.command import CascadeOption, EtagOption, LimitOption, Noun, YesOption
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import word_number
from blobhub_cli.nouns.asking import confirm_cascade

noun = Noun("org", "Organizations: they hold blobs, and say who may see and change them.")
COLUMNS = ("alias", "visibility", "description", "update_time", "id")
VISIBILITY = blob_pb2.Visibility.DESCRIPTOR

Organization = Annotated[str, Argument(help="Its alias or id, such as `acme`.")]
Description = Annotated[str | None, Option("--description", help="What it is for, in words.")]
Visibility = Annotated[str | None, Option("--visibility", help="private or public.")]


@noun.command("create", "blobhub org create acme", "blobhub org create acme --visibility public --description 'Pipelines'")
async def create(
    hub: Hub,
    alias: Annotated[str, Argument(help="A new alias: 1 to 63 of a-z 0-9 - _")],
    description: Description = None,
    visibility: Visibility = None,
) -> None:
    """Create an organization; you become its admin."""
    request = organization_pb2.CreateOrganizationRequest(
        alias=alias,
        description=description or "",
        visibility=word_number(VISIBILITY, visibility, "visibility"),
    )
    hub.out.record((await hub.call(hub.client.organizations.CreateOrganization, request)).organization)


@noun.command("get", "blobhub org get acme", "blobhub org get acme --json")
async def get(hub: Hub, organization: Organization) -> None:
    """Show an organization."""
    request = organization_pb2.GetOrganizationRequest(organization=organization)
    hub.out.record((await hub.call(hub.client.organizations.GetOrganization, request)).organization)


@noun.command("list", "blobhub org list", "blobhub org list --prefix team- --limit 0 --json")
async def list_all(
    hub: Hub,
    prefix: Annotated[str, Option("--prefix", help="What the aliases begin with.")] = "",
    visibility: Visibility = None,
    order_by: Annotated[str, Option("--order-by", help="alias, create_time or update_time, each also with ` desc`.")] = "",
    limit: LimitOption = 100,
) -> None:
    """List the organizations that you may see."""
    request = organization_pb2.ListOrganizationsRequest(
        alias_prefix=prefix,
        order_by=order_by,
        visibility=word_number(VISIBILITY, visibility, "visibility"),
    )
    await hub.out.table(hub.pages(hub.client.organizations.ListOrganizations, request, limit), COLUMNS, limit)


@noun.command(
    "update", "blobhub org update acme --description 'Pipelines of Acme'", "blobhub org update acme --alias acme-eu"
)
async def update(
    hub: Hub,
    organization: Organization,
    alias: Annotated[str | None, Option("--alias", help="Rename it.")] = None,
    description: Description = None,
    visibility: Visibility = None,
    etag: EtagOption = "",
) -> None:
    """Change an organization: what is given, and nothing else."""
    changes = {"alias": alias, "description": description, "visibility": visibility}
    request = organization_pb2.UpdateOrganizationRequest(
        organization=organization,
        alias=alias or "",
        description=description or "",
        visibility=word_number(VISIBILITY, visibility, "visibility"),
        etag=etag,
    )
    request.update_mask.paths.extend(name for name, value in changes.items() if value is not None)
    hub.out.record((await hub.call(hub.client.organizations.UpdateOrganization, request)).organization)


@noun.command("delete", "blobhub org delete acme", "blobhub org delete acme --cascade --yes")
async def delete(
    hub: Hub, organization: Organization, cascade: CascadeOption = False, yes: YesOption = False, etag: EtagOption = ""
) -> None:
    """Delete an organization."""
    confirm_cascade(f"organization {organization}", cascade=cascade, yes=yes)
    request = organization_pb2.DeleteOrganizationRequest(organization=organization, cascade=cascade, etag=etag)
    hub.out.done(await hub.call(hub.client.organizations.DeleteOrganization, request), f"deleted {organization}")
