"""`blobhub user`: users of the server."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import user_pb2
from typer import Argument, Option

from blobhub_cli.command import LimitOption, Noun
from blobhub_cli.hub import Hub

noun = Noun("user", "Users of the server, who may be members of organizations and blobs.")
COLUMNS = ("name", "display_name", "administrator", "disabled", "id")


@noun.command("create", "blobhub user create ann --display-name 'Ann Lee'")
async def create(
    hub: Hub,
    name: Annotated[str, Argument(help="A new name.")],
    display_name: Annotated[str, Option("--display-name", help="What people call them.")] = "",
) -> None:
    """Create a user."""
    request = user_pb2.CreateUserRequest(name=name, display_name=display_name)
    hub.out.record((await hub.call(hub.client.users.CreateUser, request)).user)


@noun.command("get", "blobhub user get @ann", "blobhub user get @me")
async def get(hub: Hub, user: Annotated[str, Argument(help="`@ann`, `@me`, or an id.")]) -> None:
    """Show a user."""
    hub.out.record((await hub.call(hub.client.users.GetUser, user_pb2.GetUserRequest(user=user))).user)


@noun.command("list", "blobhub user list --prefix a")
async def list_all(
    hub: Hub, prefix: Annotated[str, Option("--prefix", help="What the names begin with.")] = "", limit: LimitOption = 100
) -> None:
    """List users."""
    request = user_pb2.ListUsersRequest(name_prefix=prefix)
    await hub.out.table(hub.pages(hub.client.users.ListUsers, request, limit), COLUMNS, limit)
