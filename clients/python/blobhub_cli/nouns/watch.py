"""`blobhub watch`: what happens, as it happens."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1.audit_pb2 import AuditEntry
from blobhub.v1.blob_event_pb2 import BlobEvent
from blobhub.v1.firing_pb2 import Firing
from google.protobuf.message import Message
from typer import Argument, Option

from blobhub_cli.command import Noun
from blobhub_cli.hub import Hub
from blobhub_cli.picture import event_line
from blobhub_cli.plain import json_text, plain, readable

noun = Noun("watch", "Watch what happens, as it happens: what has happened first, then what does, until Ctrl-C.")

After = Annotated[int, Option("--after", help="What comes after this sequence.")]
Replay = Annotated[bool, Option("--replay", help="End with what has happened.")]


@noun.command("blob", "blobhub watch blob acme/pipeline --replay")
async def blob(hub: Hub, blob: Annotated[str, Argument(help="The blob.")], after: After = 0, replay: Replay = False) -> None:
    """Watch a blob: its revisions, its metadata."""
    async for event in hub.client.watch_blob(blob, after_sequence=after, replay_only=replay):
        _show(hub, event, _blob_line(event))


def _blob_line(event: BlobEvent) -> str:
    payload = event.WhichOneof("payload")
    about = json_text(plain(getattr(event, payload))) if payload else ""
    return f"{readable(event, 'create_time')} {event.sequence:>4}  {event.type:<26}  {about}"


@noun.command("session", "blobhub watch session acme/pipeline@3/intake")
async def session(
    hub: Hub, session: Annotated[str, Argument(help="The session.")], after: After = 0, replay: Replay = False
) -> None:
    """Watch a session: its executions and its objects."""
    async for event in hub.client.watch_session(session, after_session_sequence=after, replay_only=replay):
        _show(hub, event, event_line(event).plain)


@noun.command("firings", "blobhub watch firings acme/nightly")
async def firings(
    hub: Hub, blob: Annotated[str, Argument(help="The scheduler.")], after: After = 0, replay: Replay = False
) -> None:
    """Watch what a scheduler fires, and what becomes of it."""
    async for firing in hub.client.watch_firings(blob, after_sequence=after, replay_only=replay):
        show_firing(hub, firing)


@noun.command("audit", "blobhub watch audit acme --replay")
async def audit(
    hub: Hub, parent: Annotated[str, Argument(help="The organization or blob.")], after: After = 0, replay: Replay = False
) -> None:
    """Watch the audit log: every change, and every refusal."""
    async for entry in hub.client.watch_audit(parent, after_sequence=after, replay_only=replay):
        _show(hub, entry, _audit_line(entry))


def _audit_line(entry: AuditEntry) -> str:
    method = entry.method.removeprefix("blobhub.v1.")
    return f"{readable(entry, 'create_time')} {entry.sequence:>4}  {entry.code:<18}  {method:<40}  {entry.resource}"


def show_firing(hub: Hub, firing: Firing) -> None:
    """Print that a schedule has fired, or how what it started has ended."""
    words = [readable(firing, name) for name in ("nominal_time", "schedule_alias", "kind", "status")]
    ended = [readable(firing, "execution_state"), firing.execution_id] if firing.execution_id else []
    _show(hub, firing, "  ".join([*words, *ended, firing.message]).rstrip())


def _show(hub: Hub, message: Message, line: str) -> None:
    if hub.out.as_json:
        hub.out.json(plain(message))
    else:
        hub.out.line(line)
