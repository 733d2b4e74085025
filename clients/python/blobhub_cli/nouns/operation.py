"""`blobhub operation`: long work that goes on after the call that began it."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import model_pb2, operation_pb2
from typer import Argument, Option

from blobhub_cli.command import LimitOption, Noun
from blobhub_cli.failures import ExitCode
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import word_number
from blobhub_cli.plain import enum_word, plain

noun = Noun("operation", "Operations: long work that goes on after the call that began it.")
COLUMNS = ("kind", "state", "STAGE=progress.stage", "create_time", "end_time", "id")
STATE = operation_pb2.OperationState.DESCRIPTOR
EXIT_CODES = {
    operation_pb2.OPERATION_STATE_FAILED: ExitCode.FAILED,
    operation_pb2.OPERATION_STATE_CANCELLED: ExitCode.STOPPED,
}
ANSWERS = (model_pb2.ProcessedModel,)
"""What operations may answer with; protobuf reads an Any only of types that are loaded."""

Operation = Annotated[str, Argument(help="The operation's id.")]


@noun.command("get", "blobhub operation get 01890000-0000-7000-8000-000000000000")
async def get(hub: Hub, operation: Operation) -> None:
    """Show an operation."""
    request = operation_pb2.GetOperationRequest(operation=operation)
    hub.out.record((await hub.call(hub.client.operations.GetOperation, request)).operation)


@noun.command("list", "blobhub operation list acme/kinds --state running")
async def list_all(
    hub: Hub,
    blob: Annotated[str, Argument(help="The blob.")],
    state: Annotated[str, Option("--state", help="pending, running, succeeded, failed or cancelled.")] = "",
    limit: LimitOption = 50,
) -> None:
    """List the operations of a blob."""
    request = operation_pb2.ListOperationsRequest(blob=blob, state=word_number(STATE, state, "state"))
    await hub.out.table(hub.pages(hub.client.operations.ListOperations, request, limit), COLUMNS, limit)


@noun.command("watch", "blobhub operation watch 01890000-0000-7000-8000-000000000000")
async def watch(hub: Hub, operation: Operation) -> int:
    """Show an operation each time it changes, to its end. The exit code says how it ended."""
    return await follow_operation(hub, operation)


async def follow_operation(hub: Hub, operation: str) -> ExitCode:
    """Show an operation to its end; how that was."""
    hub.farewell = (
        f"blobhub: interrupted; the operation {operation} goes on.\n"
        f"  come back to it:  blobhub operation watch {operation}\n"
        f"  cancel it:        blobhub operation cancel {operation}"
    )
    found = operation_pb2.Operation()
    async for found in hub.client.watch_operation(operation):
        if hub.out.as_json:
            hub.out.json(plain(found))
        else:
            state = enum_word(STATE, found.state)
            done = f"  {found.progress.done:.0%}" if found.progress.HasField("done") else ""
            hub.out.line(f"{found.kind} is {state}  {found.progress.stage}{done}".rstrip())
    hub.farewell = ""
    if found.HasField("error"):
        hub.out.error_lines([(f"blobhub: {found.error.message}", "red")])
    return EXIT_CODES.get(found.state, ExitCode.DONE)


@noun.command("cancel", "blobhub operation cancel 01890000-0000-7000-8000-000000000000")
async def cancel(hub: Hub, operation: Operation) -> None:
    """Cancel an operation that has not ended."""
    request = operation_pb2.CancelOperationRequest(operation=operation)
    hub.out.record((await hub.call(hub.client.operations.CancelOperation, request)).operation)
