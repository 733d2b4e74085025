"""Tasks inside of scopes: what a scope gives up is over for its worker, and what is last is done also after a stop."""

from __future__ import annotations

import flows
import grpc
import pytest
import tasks
from blobhub.v1 import execution_pb2, task_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.workflow.components.contract import ComponentError
from blobhub_server.workflow.interpreter import ExecutionState, Started, TaskEnded, advance, task_turn
from calling import ask
from interpreting import compiled
from scoping import controls, inside
from served import Api
from waiting import until

pytestmark = pytest.mark.either_database

LOST = grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST"
BROKEN = ComponentError("it broke", reason="BROKEN")


def _call(id_: str) -> dict[str, object]:
    return flows.component(id_, "task.call", queue=id_)


def _tried() -> str:
    """A scope whose body is the tasks `work` and `beside`, and whose `finally` is `clean`; each on its own queue."""
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try"), flows.component("end", "flow.end")]
    parts += [flows.value("given", "given", persistence="execution", value=0)]
    parts += inside("try", _call("work"), _call("beside"), _call("clean"))
    ways = ("start.next try", "try.body work", "try.body beside", "try.finally clean", "try.success end", "try.failure end")
    return flows.document(parts, [*controls(*ways), flows.data("given", "value", "work", "input")])


async def _states(api: Api, queue: str) -> list[int]:
    return [task.state for task in await tasks.listed(api, f"acme/{queue}")]


def test_a_turn_that_gives_a_step_up_ends_its_task() -> None:
    graph = compiled(_tried())
    made = advance(graph, ExecutionState(step_limit=10), [Started({})], now=0.0, session={})
    steps = {step.component_id: number for number, step in made.state.open.items()}
    ended = TaskEnded(step=steps["beside"], attempt=1, result=BROKEN)
    turn = advance(graph, made.state, [ended], now=1.0, session={})
    found = task_turn(graph, made.state, turn.state, turn.touched)
    assert [request.queue for request in found.requests] == ["clean"]
    assert set(found.over) == {(steps["work"], 1), (steps["beside"], 1)}


async def test_a_task_beside_one_that_fails_its_scope_is_over_and_its_worker_hears_of_it(api: Api) -> None:
    session = await api.session(_tried())
    begun = await tasks.start(api, session)
    async with tasks.leasing(api, "acme/work") as works, tasks.leasing(api, "acme/beside") as besides:
        work, beside = await works.next(), await besides.next()
        assert not (await tasks.extend(api, work.lease)).stop
        await tasks.fail(api, beside.lease)
        async with tasks.leasing(api, "acme/clean") as cleans:
            clean = await cleans.next()
            assert (await tasks.extend(api, work.lease)).stop
            assert await _states(api, "work") == [task_pb2.TASK_STATE_CANCELLED]
            await expect_refusal(tasks.complete(api, work.lease), *LOST)
            await tasks.complete(api, clean.lease)
    assert (await tasks.ended(api, begun.id)).state == execution_pb2.EXECUTION_STATE_COMPLETED


async def test_what_is_last_is_done_by_a_worker_also_after_a_stop(api: Api) -> None:
    session = await api.session(_tried())
    begun = await tasks.start(api, session)
    async with tasks.leasing(api, "acme/work") as works, tasks.leasing(api, "acme/clean") as cleans:
        work = await works.next()
        await ask(api, "StopExecution", execution=begun.id)
        assert (await tasks.extend(api, work.lease)).stop
        clean = await cleans.next()
        assert not (await tasks.extend(api, clean.lease)).stop
        await tasks.complete(api, clean.lease)
    assert (await tasks.ended(api, begun.id)).state == execution_pb2.EXECUTION_STATE_STOPPED


async def test_a_stop_leaves_the_task_that_is_last(api: Api) -> None:
    session = await api.session(_tried())
    begun = await tasks.start(api, session)
    async with tasks.leasing(api, "acme/beside") as besides:
        await tasks.fail(api, (await besides.next()).lease)
    await until(lambda: _waits(api, "clean"))
    await ask(api, "StopExecution", execution=begun.id)
    async with tasks.leasing(api, "acme/clean") as cleans:
        await tasks.complete(api, (await cleans.next()).lease)
    assert (await tasks.ended(api, begun.id)).state == execution_pb2.EXECUTION_STATE_STOPPED


async def _waits(api: Api, queue: str) -> bool:
    return await _states(api, queue) == [task_pb2.TASK_STATE_WAITING]
