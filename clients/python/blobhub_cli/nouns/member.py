"""`blobhub member`: who has which role on an organization or a blob."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import access_pb2, member_pb2
from typer import Argument, Option

from blobhub_cli.command import EtagOption, LimitOption, Noun
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import word_number

noun = Noun("member", "Members: users with a role on an organization or a blob.")
COLUMNS = ("USER=user_name", "role", "create_time", "user_id")
ROLE = access_pb2.Role.DESCRIPTOR

Parent = Annotated[str, Argument(help="An organization (`acme`) or a blob (`acme/pipeline`), or an id.")]
User = Annotated[str, Argument(help="`@ann`, `@me`, or an id.")]
Role = Annotated[str, Argument(help="read, write or admin.")]


@noun.command("create", "blobhub member create acme @ann write")
async def create(hub: Hub, parent: Parent, user: User, role: Role) -> None:
    """Give a user a role."""
    request = member_pb2.CreateMemberRequest(parent=parent, user=user, role=word_number(ROLE, role, "role"))
    hub.out.record((await hub.call(hub.client.members.CreateMember, request)).member)


@noun.command("get", "blobhub member get acme @ann")
async def get(hub: Hub, parent: Parent, user: User) -> None:
    """Show a member."""
    request = member_pb2.GetMemberRequest(parent=parent, user=user)
    hub.out.record((await hub.call(hub.client.members.GetMember, request)).member)


@noun.command("list", "blobhub member list acme --role admin")
async def list_all(
    hub: Hub,
    parent: Parent,
    role: Annotated[str, Option("--role", help="Those with this role.")] = "",
    limit: LimitOption = 100,
) -> None:
    """List the members of an organization or a blob."""
    request = member_pb2.ListMembersRequest(parent=parent, role=word_number(ROLE, role, "role"))
    await hub.out.table(hub.pages(hub.client.members.ListMembers, request, limit), COLUMNS, limit)


@noun.command("update", "blobhub member update acme @ann admin")
async def update(hub: Hub, parent: Parent, user: User, role: Role, etag: EtagOption = "") -> None:
    """Give a member another role."""
    request = member_pb2.UpdateMemberRequest(parent=parent, user=user, role=word_number(ROLE, role, "role"), etag=etag)
    request.update_mask.paths.append("role")
    hub.out.record((await hub.call(hub.client.members.UpdateMember, request)).member)


@noun.command("delete", "blobhub member delete acme @ann")
async def delete(hub: Hub, parent: Parent, user: User, etag: EtagOption = "") -> None:
    """Take a member's role away."""
    request = member_pb2.DeleteMemberRequest(parent=parent, user=user, etag=etag)
    hub.out.done(await hub.call(hub.client.members.DeleteMember, request), f"{user} is no member of {parent} any more")
