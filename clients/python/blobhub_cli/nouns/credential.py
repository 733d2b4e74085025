"""`blobhub credential`: secrets that blobs use when they call other systems."""

from __future__ import annotations

import json
from typing import Annotated, Any

from blobhub.v1 import credential_pb2
from typer import Argument, Option

from blobhub_cli.command import EtagOption, LimitOption, Noun
from blobhub_cli.failures import CommandError
from blobhub_cli.hub import Hub
from blobhub_cli.nouns.asking import ask_secret

noun = Noun("credential", "Credentials: secrets that can be used by what runs in a blob, and never read back.")
COLUMNS = ("alias", "type", "description", "update_time", "id")

Parent = Annotated[str, Argument(help="An organization, a blob, or a user (`@me`).")]
Credential = Annotated[str, Argument(help="The credential's id.")]
Description = Annotated[str | None, Option("--description", help="What it is for, in words.")]
Field = Annotated[str, Option("--field", help="The secret is one text, the value of this key; a JSON object unless given.")]


def _ask_body(field: str) -> str:
    """The secret as JSON text: typed unseen or from standard input, for what stands on a command line is known to others."""
    secret = ask_secret("Secret" if field else "Secret, as a JSON object")
    if field:
        return json.dumps({field: secret})
    try:
        found: Any = json.loads(secret)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandError("the secret is not a JSON object", next_step="name the key that it is the value of: --field")
    return secret


@noun.command(
    "create",
    "blobhub credential create acme openai --type openai --field api_key",
    "blobhub credential create acme openai --type openai < secret.json",
)
async def create(
    hub: Hub,
    parent: Parent,
    alias: Annotated[str, Argument(help="What blobs call it by.")],
    kind: Annotated[str, Option("--type", "-t", help="The provider that it is for.")],
    field: Field = "",
    description: Description = None,
) -> None:
    """Store a secret, which is typed unseen or comes from standard input."""
    request = credential_pb2.CreateCredentialRequest(
        parent=parent, alias=alias, type=kind, body_json=_ask_body(field), description=description or ""
    )
    hub.out.record((await hub.call(hub.client.credentials.CreateCredential, request)).credential)


@noun.command("get", "blobhub credential get 01890000-0000-7000-8000-000000000000")
async def get(hub: Hub, credential: Credential) -> None:
    """Show what is known of a credential, without its secret."""
    request = credential_pb2.GetCredentialRequest(credential=credential)
    hub.out.record((await hub.call(hub.client.credentials.GetCredential, request)).credential)


@noun.command("list", "blobhub credential list acme")
async def list_all(
    hub: Hub,
    parent: Parent,
    kind: Annotated[str, Option("--type", "-t", help="Those for one provider.")] = "",
    limit: LimitOption = 100,
) -> None:
    """List credentials, without their secrets."""
    request = credential_pb2.ListCredentialsRequest(parent=parent, type=kind)
    await hub.out.table(hub.pages(hub.client.credentials.ListCredentials, request, limit), COLUMNS, limit)


@noun.command("resolve", "blobhub credential resolve acme/pipeline openai")
async def resolve(
    hub: Hub,
    blob: Annotated[str, Argument(help="The blob.")],
    alias: Annotated[str, Argument(help="The alias.")],
) -> None:
    """Show which credential a blob gets for an alias: its own, else its organization's."""
    request = credential_pb2.ResolveCredentialRequest(blob=blob, alias=alias)
    hub.out.record((await hub.call(hub.client.credentials.ResolveCredential, request)).credential)


@noun.command("update", "blobhub credential update 01890000-0000-7000-8000-000000000000 --secret --field api_key")
async def update(
    hub: Hub,
    credential: Credential,
    secret: Annotated[bool, Option("--secret", help="Replace the secret, which is asked for.")] = False,
    field: Field = "",
    description: Description = None,
    etag: EtagOption = "",
) -> None:
    """Change a credential: what is given, and nothing else."""
    request = credential_pb2.UpdateCredentialRequest(credential=credential, description=description or "", etag=etag)
    if secret:
        request.body_json = _ask_body(field)
        request.update_mask.paths.append("body")
    if description is not None:
        request.update_mask.paths.append("description")
    hub.out.record((await hub.call(hub.client.credentials.UpdateCredential, request)).credential)


@noun.command("delete", "blobhub credential delete 01890000-0000-7000-8000-000000000000")
async def delete(hub: Hub, credential: Credential, etag: EtagOption = "") -> None:
    """Delete a credential."""
    request = credential_pb2.DeleteCredentialRequest(credential=credential, etag=etag)
    hub.out.done(await hub.call(hub.client.credentials.DeleteCredential, request), f"deleted {credential}")
