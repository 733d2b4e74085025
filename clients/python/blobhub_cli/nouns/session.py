"""`blobhub session`: sessions, their events and their objects."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import session_object_pb2, session_pb2
from blobhub_client import get_value, set_value
from typer import Argument, Option

from blobhub_cli.command import EtagOption, LimitOption, Noun
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import json_or_text, word_number
from blobhub_cli.picture import event_line
from blobhub_cli.plain import json_text, plain

noun = Noun("session", "Sessions: contexts that definitions run in, with objects that they share.")
objects = Noun("object", "Objects of a session: values that its executions share.")
noun.typer.add_typer(objects.typer)
COLUMNS = ("alias", "state", "create_time", "description", "id")
OBJECT_COLUMNS = ("alias", "type", "size", "update_time")
STATE = session_pb2.SessionState.DESCRIPTOR

Session = Annotated[str, Argument(help="`acme/pipeline@3/intake`, or its id.")]
Alias = Annotated[str, Argument(help="The object's alias.")]


@noun.command("create", "blobhub session create acme/pipeline@3 --alias intake")
async def create(
    hub: Hub,
    revision: Annotated[str, Argument(help="The revision whose definitions run in it.")],
    alias: Annotated[str, Option("--alias", help="A name for it.")] = "",
    description: Annotated[str, Option("--description", help="What it is for, in words.")] = "",
) -> None:
    """Open a session."""
    request = session_pb2.CreateSessionRequest(revision=revision, alias=alias, description=description)
    hub.out.record((await hub.call(hub.client.sessions.CreateSession, request)).session)


@noun.command("get", "blobhub session get acme/pipeline@3/intake")
async def get(hub: Hub, session: Session) -> None:
    """Show a session."""
    hub.out.record((await hub.call(hub.client.sessions.GetSession, session_pb2.GetSessionRequest(session=session))).session)


@noun.command("list", "blobhub session list acme/pipeline --state open")
async def list_all(
    hub: Hub,
    blob: Annotated[str, Argument(help="The workflow blob.")],
    state: Annotated[str, Option("--state", help="open, closing or closed.")] = "",
    revision: Annotated[str, Option("--revision", help="Those on one revision.")] = "",
    limit: LimitOption = 50,
) -> None:
    """List sessions, the newest first."""
    request = session_pb2.ListSessionsRequest(
        blob=blob, state=word_number(STATE, state, "state"), revision=revision, order_by="create_time desc"
    )
    await hub.out.table(hub.pages(hub.client.sessions.ListSessions, request, limit), COLUMNS, limit)


@noun.command("close", "blobhub session close acme/pipeline@3/intake")
async def close(hub: Hub, session: Session) -> None:
    """Close a session; what runs in it is stopped."""
    request = session_pb2.CloseSessionRequest(session=session)
    hub.out.record((await hub.call(hub.client.sessions.CloseSession, request)).session)


@noun.command(
    "events", "blobhub session events acme/pipeline@3/intake", "blobhub session events acme/pipeline@3/intake --follow"
)
async def events(
    hub: Hub,
    session: Session,
    after: Annotated[int, Option("--after", help="Those after this sequence.")] = 0,
    follow: Annotated[bool, Option("--follow", "-f", help="Go on with those to come.")] = False,
) -> None:
    """Show what happened in a session."""
    async for event in hub.client.watch_session(session, after_session_sequence=after, replay_only=not follow):
        if hub.out.as_json:
            hub.out.json(plain(event))
        else:
            hub.out.console.print(event_line(event), soft_wrap=True)


@objects.command(
    "put",
    "blobhub session object put acme/pipeline@3/intake topic News",
    "blobhub session object put acme/pipeline@3/intake state @state.json",
)
async def put(
    hub: Hub,
    session: Session,
    alias: Alias,
    value: Annotated[str, Argument(help="JSON, or text; @file for what is in a file.")],
    create_only: Annotated[bool, Option("--create-only", help="Refuse to replace one.")] = False,
    etag: EtagOption = "",
) -> None:
    """Create or replace an object."""
    request = session_object_pb2.PutSessionObjectRequest(session=session, alias=alias, create_only=create_only, etag=etag)
    set_value(request, json_or_text(value))
    hub.out.record((await hub.call(hub.client.session_objects.PutSessionObject, request)).session_object)


@objects.command("get", "blobhub session object get acme/pipeline@3/intake topic")
async def get_object(hub: Hub, session: Session, alias: Alias) -> None:
    """Print an object's value as JSON; with --json, the object with all that is known of it."""
    request = session_object_pb2.GetSessionObjectRequest(session=session, alias=alias)
    found = (await hub.call(hub.client.session_objects.GetSessionObject, request)).session_object
    if hub.out.as_json:
        hub.out.record(found)
    else:
        hub.out.line(json_text(get_value(found), indent=2))


@objects.command("list", "blobhub session object list acme/pipeline@3/intake")
async def list_objects(
    hub: Hub,
    session: Session,
    prefix: Annotated[str, Option("--prefix", help="What the aliases begin with.")] = "",
    limit: LimitOption = 100,
) -> None:
    """List the objects of a session."""
    request = session_object_pb2.ListSessionObjectsRequest(session=session, alias_prefix=prefix)
    await hub.out.table(hub.pages(hub.client.session_objects.ListSessionObjects, request, limit), OBJECT_COLUMNS, limit)


@objects.command("delete", "blobhub session object delete acme/pipeline@3/intake topic")
async def delete(hub: Hub, session: Session, alias: Alias, etag: EtagOption = "") -> None:
    """Delete an object."""
    request = session_object_pb2.DeleteSessionObjectRequest(session=session, alias=alias, etag=etag)
    hub.out.done(await hub.call(hub.client.session_objects.DeleteSessionObject, request), f"deleted {alias}")
