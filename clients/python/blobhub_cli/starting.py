"""Starting executions: their inputs, their session, and, for a file, whatever it needs to run at all."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import grpc
from blobhub.v1 import (
    blob_pb2,
    caller_pb2,
    definition_pb2,
    execution_pb2,
    organization_pb2,
    revision_pb2,
    session_pb2,
)
from blobhub_client import set_value
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from typer import Option

from blobhub_cli.failures import CommandError
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import INPUT_FORMS, named_values, read_json, split_last

WORKFLOW = "blobhub.compute.workflow"
NOT_THERE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED)

InputOption = Annotated[list[str] | None, Option("--input", "-i", help=f"An input: {INPUT_FORMS}. Repeatable.")]
InputsOption = Annotated[str, Option("--inputs", help="Inputs as one JSON object, or @file.")]
TimeoutOption = Annotated[float, Option("--timeout", help="Seconds after which the execution fails.")]
StepLimitOption = Annotated[int, Option("--step-limit", help="Steps after which it fails; 10,000 unless given.")]
BlobOption = Annotated[
    str, Option("--blob", help="The workflow blob whose draft takes the definition; made where there is none.")
]


def make_spec(
    definition: str, given: Sequence[str] | None, document: str, timeout: float, step_limit: int
) -> execution_pb2.ExecutionSpec:
    """What is to be run, on what. Raises CommandError."""
    values: dict[str, Any] = read_json(document, "--inputs") if document else {}
    if not isinstance(values, dict):
        raise CommandError("--inputs is one JSON object: the values by alias")
    spec = execution_pb2.ExecutionSpec(definition=definition, step_limit=step_limit)
    if timeout:
        made = Duration()
        made.FromMilliseconds(round(timeout * 1000))
        spec.timeout.CopyFrom(made)
    for alias, value in (values | named_values(given or ())).items():
        set_value(spec.input_data.add(alias=alias), value)
    return spec


async def open_session(hub: Hub, revision: str) -> str:
    """A new session on a revision; its id."""
    answer = await hub.call(hub.client.sessions.CreateSession, session_pb2.CreateSessionRequest(revision=revision))
    return answer.session.id


async def start(hub: Hub, session: str, spec: execution_pb2.ExecutionSpec) -> execution_pb2.Execution:
    """Start an execution."""
    hub.farewell = f"blobhub: interrupted; it may have started all the same: blobhub session events {session}"
    request = execution_pb2.StartExecutionRequest(session=session, spec=spec)
    return (await hub.call(hub.client.executions.StartExecution, request)).execution


def alias_for(path: str) -> str:
    """The alias of a definition or blob that is made for a file: its name, in the letters that an alias may have."""
    return re.sub(r"[^a-z0-9_-]+", "-", Path(path).stem.lower()).strip("-")[:63] or "workflow"


async def ensure_draft(hub: Hub, path: str, blob: str) -> str:
    """A draft for a file's definition, in a blob: the one that is named, else one of the caller's own for this file.

    The organization, the blob and the draft are made where there are none.
    """
    blob = blob or await _own_blob(hub, path)
    draft = f"{blob}@draft"
    if await _find(hub, hub.client.revisions.GetRevision, revision_pb2.GetRevisionRequest(revision=draft)):
        return draft
    if await _find(hub, hub.client.blobs.GetBlob, blob_pb2.GetBlobRequest(blob=blob)):
        await hub.call(hub.client.revisions.CreateRevision, revision_pb2.CreateRevisionRequest(blob=blob))
        hub.out.note(f"began a draft of {blob}")
        return draft
    organization, alias = split_last(blob, "ORGANIZATION/ALIAS")
    found = organization_pb2.GetOrganizationRequest(organization=organization)
    if not await _find(hub, hub.client.organizations.GetOrganization, found):
        request = organization_pb2.CreateOrganizationRequest(alias=organization)
        await hub.call(hub.client.organizations.CreateOrganization, request)
        hub.out.note(f"created organization {organization}")
    made = blob_pb2.CreateBlobRequest(organization=organization, alias=alias, type=WORKFLOW)
    await hub.call(hub.client.blobs.CreateBlob, made)
    hub.out.note(f"created blob {blob}")
    return draft


async def _own_blob(hub: Hub, path: str) -> str:
    """Where a file is run unless its owner says: in what their key is confined to, else in an organization of their own."""
    answer = await hub.call(hub.client.callers.GetCaller, caller_pb2.GetCallerRequest())
    if answer.caller.parent_id:
        confined = next((role for role in answer.roles), None)
        if confined is None:
            raise CommandError("the key has no role in what it is confined to", next_step="blobhub whoami")
        return confined.reference if confined.blob_id else f"{confined.reference}/{alias_for(path)}"
    name = re.sub(r"[^a-z0-9_-]+", "-", answer.caller.user_name.lower()).strip("-")
    if not name:
        raise CommandError("who may run this? No key came along", next_step="blobhub login")
    return f"{name}-scratch/{alias_for(path)}"


async def _find(hub: Hub, method: Callable[..., Awaitable[Any]], request: Message) -> bool:
    """Whether there is something that the caller may see."""
    try:
        await hub.call(method, request)
    except grpc.aio.AioRpcError as error:
        if error.code() in NOT_THERE:
            return False
        raise
    return True


async def check(hub: Hub, revision: str, document: str) -> definition_pb2.CheckDefinitionResponse:
    """What is wrong with a document."""
    request = definition_pb2.CheckDefinitionRequest(revision=revision, document=document)
    return await hub.call(hub.client.definitions.CheckDefinition, request)


async def put(hub: Hub, revision: str, alias: str, document: str, etag: str = "") -> definition_pb2.PutDefinitionResponse:
    """Create or replace a definition."""
    request = definition_pb2.PutDefinitionRequest(revision=revision, alias=alias, document=document, etag=etag)
    return await hub.call(hub.client.definitions.PutDefinition, request)
