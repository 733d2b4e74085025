"""`blobhub signal`: what executions wait for, and what they are sent."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import execution_pb2, signal_pb2
from blobhub_client import set_value
from typer import Argument, Option

from blobhub_cli.command import LimitOption, Noun
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import json_or_text
from blobhub_cli.plain import readable

noun = Noun("signal", "Signals: what steps of executions wait for.")
COLUMNS = ("NAME=signal.name", "KEY=signal.key", "STEP=processor_id", "SINCE=create_time", "UNTIL=wake_time", "execution_id")

Name = Annotated[str, Argument(help="The signal's name, as the step that waits has it.")]
Value = Annotated[str, Argument(help="What the step goes on with: JSON, or text; @file for what is in a file.")]
Key = Annotated[str, Option("--key", help="Of signals of that name, which.")]


@noun.command(
    "send",
    "blobhub signal send acme/expenses decision true --key 7",
    "blobhub signal send acme/expenses decision '{\"approved\": true}' --key 7",
)
async def send(
    hub: Hub, blob: Annotated[str, Argument(help="The workflow blob.")], name: Name, value: Value = "null", key: Key = ""
) -> None:
    """Send a signal to whoever waits for it in a blob; it is kept for the first who will, where nobody does."""
    request = signal_pb2.SendSignalRequest(blob=blob, name=name, key=key)
    set_value(request, json_or_text(value))
    answer = await hub.call(hub.client.signals.SendSignal, request)
    kept = f"nobody waits for it: it is kept until {readable(answer, 'expire_time')}"
    hub.out.done(answer, f"the execution {answer.execution_id} has got it" if answer.execution_id else kept)


@noun.command("execution", "blobhub signal execution 01890000-0000-7000-8000-000000000000 decision true --key 7")
async def execution(
    hub: Hub,
    execution: Annotated[str, Argument(help="The execution's id.")],
    name: Name,
    value: Value = "null",
    key: Key = "",
) -> None:
    """Send a signal to one execution, which gets it when it waits for it."""
    request = execution_pb2.SignalExecutionRequest(execution=execution, name=name, key=key)
    set_value(request, json_or_text(value))
    hub.out.done(await hub.call(hub.client.executions.SignalExecution, request), f"sent to the execution {execution}")


@noun.command("list", "blobhub signal list acme/expenses --name decision")
async def list_all(
    hub: Hub,
    blob: Annotated[str, Argument(help="The workflow blob.")],
    name: Annotated[str, Option("--name", help="Steps that wait for signals of this name.")] = "",
    key: Annotated[str, Option("--key", help="Steps that wait for this key.")] = "",
    limit: LimitOption = 50,
) -> None:
    """List the steps that wait for signals, those that have waited longest first."""
    request = signal_pb2.ListWaitsRequest(blob=blob, name=name, key=key)
    await hub.out.table(hub.pages(hub.client.signals.ListWaits, request, limit), COLUMNS, limit)
