"""Workflows that start others, for tests."""

from __future__ import annotations

from typing import Any

import flows
from blobhub.v1 import execution_pb2, session_pb2
from calling import ask
from scoping import controls, datas
from served import WORKFLOW, Api
from waiting import until, within_deadline


def executes(definition: str, *, handled: bool = False, policy: Any = None, **settings: Any) -> str:
    """Start a definition and end with its result; where failures are handled, with the error."""
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts.append(flows.component("run", "workflow.execute", policy=policy, definition=definition, **settings))
    ways, values = ["start.next run", "run.success end"], ["run.result end.value"]
    if handled:
        parts.append(flows.component("failed", "flow.end"))
        ways, values = [*ways, "run.failure failed"], [*values, "run.error failed.value"]
    return flows.document(parts, controls(*ways) + datas(*values))


def doubles() -> str:
    """The result is twice what it is given."""
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts.append(flows.value("n", "n", persistence="execution", value=0))
    parts.append(flows.component("double", "logic.expression", expression="n * 2"))
    ways, values = ("start.next double", "double.success end"), ("n.value double.n", "double.result end.value")
    return flows.document(parts, controls(*ways) + datas(*values))


def fails(reason: str = "OUT_OF_STOCK", **settings: Any) -> str:
    """A definition that fails."""
    parts = [flows.component("start", "flow.start")]
    parts.append(flows.component("fail", "flow.fail", reason=reason, message="there is none left", **settings))
    return flows.document(parts, controls("start.next fail"))


async def workflow(api: Api, blob: str, organization: str = "acme", **definitions: str) -> None:
    """Make a workflow blob with some definitions in its draft."""
    await ask(api, "CreateBlob", organization=organization, alias=blob, type=WORKFLOW)
    for alias, document in definitions.items():
        await api.put(document, revision=f"{organization}/{blob}@draft", alias=alias)


async def begin(api: Api, session: str, definition: str = "workflow") -> execution_pb2.Execution:
    """Start an execution."""
    return (await ask(api, "StartExecution", session=session, spec={"definition": definition})).execution


async def run(api: Api, session: str, definition: str = "workflow") -> execution_pb2.Execution:
    """Run an execution to its end."""
    answer = ask(api, "RunExecution", session=session, spec={"definition": definition})
    return (await within_deadline(answer)).execution


async def listed(api: Api, blob: str = "acme/pipeline", **only: Any) -> list[execution_pb2.Execution]:
    """The executions of a blob, the oldest first."""
    return list((await ask(api, "ListExecutions", blob=blob, order_by="create_time", **only)).executions)


async def children_of(api: Api, execution_id: str, blob: str = "acme/pipeline") -> list[execution_pb2.Execution]:
    """What steps of an execution have started in a blob, the oldest first."""
    return [each for each in await listed(api, blob) if each.parent_execution_id == execution_id]


async def child_of(api: Api, execution_id: str, blob: str = "acme/pipeline") -> execution_pb2.Execution:
    """The only execution that another one has started in a blob, once it waits or has ended."""

    async def find() -> execution_pb2.Execution | None:
        found = await children_of(api, execution_id, blob)
        assert len(found) <= 1
        return found[0] if found and found[0].state > execution_pb2.EXECUTION_STATE_RUNNING else None

    return await until(find)


async def state(api: Api, execution_id: str) -> int:
    """The state that an execution is in."""
    return int((await ask(api, "GetExecution", execution=execution_id)).execution.state)


async def events(api: Api, execution_id: str) -> list[Any]:
    """The events of an execution, once it has ended."""
    watch = api.executions.WatchExecution(execution_pb2.WatchExecutionRequest(execution=execution_id))

    async def read() -> list[Any]:
        return [event async for batch in watch for event in batch.events]

    return await within_deadline(read())


async def open_sessions(api: Api, blob: str) -> int:
    """How many sessions of a blob are open."""
    answer = await ask(api, "ListSessions", blob=blob, state=session_pb2.SESSION_STATE_OPEN)
    return len(answer.sessions)
