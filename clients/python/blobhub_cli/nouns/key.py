"""`blobhub key`: API keys."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import access_pb2, api_key_pb2
from google.protobuf.duration_pb2 import Duration
from typer import Argument, Option

from blobhub_cli.command import EtagOption, LimitOption, Noun
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import timestamp, word_number

noun = Noun("key", "API keys: access for programs, within an organization or a blob, or as a user.")
COLUMNS = (
    "public_id",
    "role",
    "description",
    "EXPIRES=expire_time",
    "REVOKED=revoke_time",
    "LAST USED=last_used_time",
    "id",
)
ROLE = access_pb2.Role.DESCRIPTOR
ONCE = "The key is shown this once."

Key = Annotated[str, Argument(help="The key's id.")]


@noun.command("create", "blobhub key create acme --role write --description 'The night shift'")
async def create(
    hub: Hub,
    parent: Annotated[str, Argument(help="An organization, a blob, or a user (`@me`): what it is for.")],
    role: Annotated[str, Option("--role", help="read, write or admin.")] = "read",
    description: Annotated[str, Option("--description", help="What it is for, in words.")] = "",
    expires: Annotated[str, Option("--expires", help="When it stops working: 2027-01-01T00:00:00Z.")] = "",
) -> None:
    """Make a key, and show it once."""
    request = api_key_pb2.CreateApiKeyRequest(
        parent=parent, role=word_number(ROLE, role, "role"), description=description, expire_time=timestamp(expires)
    )
    hub.out.record(await hub.call(hub.client.api_keys.CreateApiKey, request))
    hub.out.note(ONCE)


@noun.command("get", "blobhub key get 01890000-0000-7000-8000-000000000000")
async def get(hub: Hub, key: Key) -> None:
    """Show what is known of a key."""
    request = api_key_pb2.GetApiKeyRequest(api_key=key)
    hub.out.record((await hub.call(hub.client.api_keys.GetApiKey, request)).api_key)


@noun.command("list", "blobhub key list acme --valid")
async def list_all(
    hub: Hub,
    parent: Annotated[str, Argument(help="An organization, a blob, or a user (`@me`).")],
    valid: Annotated[bool, Option("--valid", help="Those that work.")] = False,
    limit: LimitOption = 100,
) -> None:
    """List keys."""
    request = api_key_pb2.ListApiKeysRequest(parent=parent, valid_only=valid)
    await hub.out.table(hub.pages(hub.client.api_keys.ListApiKeys, request, limit), COLUMNS, limit)


@noun.command("update", "blobhub key update 01890000-0000-7000-8000-000000000000 --description 'The day shift'")
async def update(
    hub: Hub,
    key: Key,
    description: Annotated[str, Option("--description", help="What it is for, in words.")],
    etag: EtagOption = "",
) -> None:
    """Change a key's description."""
    request = api_key_pb2.UpdateApiKeyRequest(api_key=key, description=description, etag=etag)
    request.update_mask.paths.append("description")
    hub.out.record((await hub.call(hub.client.api_keys.UpdateApiKey, request)).api_key)


@noun.command("rotate", "blobhub key rotate 01890000-0000-7000-8000-000000000000 --grace 3600")
async def rotate(
    hub: Hub,
    key: Key,
    grace: Annotated[int, Option("--grace", help="Seconds that the old one goes on working.")] = 0,
    etag: EtagOption = "",
) -> None:
    """Make a key in the place of another one, and show it once."""
    request = api_key_pb2.RotateApiKeyRequest(api_key=key, grace=Duration(seconds=grace), etag=etag)
    hub.out.record(await hub.call(hub.client.api_keys.RotateApiKey, request))
    hub.out.note(ONCE)


@noun.command("revoke", "blobhub key revoke 01890000-0000-7000-8000-000000000000")
async def revoke(hub: Hub, key: Key) -> None:
    """End a key at once."""
    request = api_key_pb2.RevokeApiKeyRequest(api_key=key)
    hub.out.record((await hub.call(hub.client.api_keys.RevokeApiKey, request)).api_key)
