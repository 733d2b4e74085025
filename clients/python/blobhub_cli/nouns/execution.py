"""`blobhub execution`: executions of workflows."""

from __future__ import annotations

import time
from typing import Annotated

from blobhub.v1 import execution_pb2
from typer import Argument, Option

from blobhub_cli.command import LimitOption, Noun
from blobhub_cli.following import MAX_LINES, follow
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import timestamp, word_number
from blobhub_cli.picture import picture
from blobhub_cli.plain import plain
from blobhub_cli.tree import RunTree

noun = Noun("execution", "Executions: runs of a definition inside a session.")
COLUMNS = ("state", "DEFINITION=definition_alias", "create_time", "end_time", "FAILURE=failure.reason", "id")
STATE = execution_pb2.ExecutionState.DESCRIPTOR

Execution = Annotated[str, Argument(help="The execution's id.")]


@noun.command(
    "list", "blobhub execution list acme/pipeline", "blobhub execution list acme/pipeline --state failed --limit 0"
)
async def list_all(
    hub: Hub,
    blob: Annotated[str, Argument(help="The workflow blob.")],
    session: Annotated[str, Option("--session", help="Those of one session.")] = "",
    definition: Annotated[str, Option("--definition", help="Those of one definition, by its alias.")] = "",
    state: Annotated[str, Option("--state", help="Those that are running, waiting, failed, completed, stopped …")] = "",
    after: Annotated[str, Option("--after", help="Those that began after this time.")] = "",
    before: Annotated[str, Option("--before", help="Those that began before this time.")] = "",
    limit: LimitOption = 50,
) -> None:
    """List executions, the newest first."""
    request = execution_pb2.ListExecutionsRequest(
        blob=blob,
        session=session,
        definition_alias=definition,
        state=word_number(STATE, state, "state"),
        created_after=timestamp(after),
        created_before=timestamp(before),
        order_by="create_time desc",
    )
    await hub.out.table(hub.pages(hub.client.executions.ListExecutions, request, limit), COLUMNS, limit)


@noun.command("show", "blobhub execution show 01890000-0000-7000-8000-000000000000")
async def show(hub: Hub, execution: Execution) -> None:
    """Show an execution with its values, its steps and what they said."""
    found = await _get(hub, execution)
    if hub.out.as_json:
        events = [plain(event) async for event in hub.client.watch_execution(found.id, replay_only=True)]
        hub.out.json({"execution": plain(found), "events": events})
        return
    hub.out.record(found)
    hub.out.line()
    shown = RunTree(title=found.definition_alias, execution_id=found.id)
    async for event in hub.client.watch_execution(found.id, replay_only=True):
        shown.apply(event)
    hub.out.console.print(picture(shown, time.time(), MAX_LINES))


@noun.command("watch", "blobhub execution watch 01890000-0000-7000-8000-000000000000")
async def watch(hub: Hub, execution: Execution) -> int:
    """Show an execution from its beginning, and what it does, to its end. The exit code says how it ended."""
    return await follow(hub, await _get(hub, execution))


async def _get(hub: Hub, execution: str) -> execution_pb2.Execution:
    request = execution_pb2.GetExecutionRequest(execution=execution)
    return (await hub.call(hub.client.executions.GetExecution, request)).execution


@noun.command("stop", "blobhub execution stop 01890000-0000-7000-8000-000000000000")
async def stop(hub: Hub, execution: Execution) -> None:
    """Stop an execution."""
    request = execution_pb2.StopExecutionRequest(execution=execution)
    hub.out.record((await hub.call(hub.client.executions.StopExecution, request)).execution)
