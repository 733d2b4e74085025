"""Workflows that start others and wait for them: `workflow.execute`."""

from __future__ import annotations

import flows
import pytest
from blobhub.v1 import access_pb2
from blobhub.v1 import execution_pb2 as pb
from blobhub_client import get_value
from calling import ask
from composing import (
    begin,
    child_of,
    children_of,
    doubles,
    events,
    executes,
    fails,
    listed,
    open_sessions,
    run,
    state,
    workflow,
)
from golden_events import golden, lines, shown
from marked import planted
from scoping import controls, datas, inside
from served import Api, Served, connected
from signals import waiting
from waiting import until

pytestmark = pytest.mark.either_database

COMPLETED, FAILED, STOPPED = pb.EXECUTION_STATE_COMPLETED, pb.EXECUTION_STATE_FAILED, pb.EXECUTION_STATE_STOPPED


async def test_a_definition_of_the_same_revision_runs_in_the_same_session_and_its_result_is_the_steps(api: Api) -> None:
    session = await api.session(executes("double", input={"n": 21}))
    await api.put(doubles(), alias="double")
    parent = await run(api, session)
    assert (parent.state, get_value(parent, "result")) == (COMPLETED, 42)
    child = await child_of(api, parent.id)
    assert (child.session_id, child.revision_id, child.definition_alias) == (session, parent.revision_id, "double")
    assert (child.state, parent.parent_execution_id) == (COMPLETED, "")


async def test_events_lead_from_the_step_to_what_it_has_started_and_back(api: Api) -> None:
    session = await api.session(executes("double", input={"n": 1}))
    await api.put(doubles(), alias="double")
    parent = await run(api, session)
    child = await child_of(api, parent.id)
    (waits,) = [event for event in await events(api, parent.id) if event.type == "processor.waiting"]
    assert (waits.processor_waiting.child.execution_id, waits.processor_waiting.child.session_id) == (child.id, session)
    assert waits.processor_waiting.child.blob_id == child.blob_id
    entered = (await events(api, child.id))[0].flow_entered
    assert (entered.parent_execution_id, entered.parent_step) == (parent.id, waits.processor.step)


@pytest.mark.parametrize("version", ["", "@default", "@1", "@latest"])
async def test_a_definition_of_another_blob_runs_in_a_session_of_its_own_that_is_closed_after_it(
    api: Api, version: str
) -> None:
    session = await api.session(executes(f"acme/other{version}/double", input={"n": 5}))
    await workflow(api, "other", double=doubles())
    published = await api.publish("acme/other")
    await api.publish()
    parent = await run(api, session)
    assert get_value(parent, "result") == 10
    child = await child_of(api, parent.id, "acme/other")
    assert child.revision_id == published.id
    assert child.session_id != session
    await until(lambda: no_session(api))


async def no_session(api: Api) -> bool:
    return not await open_sessions(api, "acme/other")


async def test_a_session_that_is_named_is_opened_once_and_stays(api: Api) -> None:
    session = await api.session(executes("acme/other/double", input={"n": 5}, session="shared"))
    await workflow(api, "other", double=doubles())
    await api.publish("acme/other")
    for _ in range(2):
        assert (await run(api, session)).state == COMPLETED
    one, two = await listed(api, "acme/other")
    assert one.session_id == two.session_id
    assert await open_sessions(api, "acme/other") == 1


async def test_a_failure_comes_up_with_its_reason_and_its_details(api: Api) -> None:
    session = await api.session(executes("stock", handled=True))
    await api.put(fails(details={"sku": 7}), alias="stock")
    parent = await run(api, session)
    child = await child_of(api, parent.id)
    error = get_value(parent, "result")
    assert (error["reason"], error["component_id"]) == ("OUT_OF_STOCK", "run")
    assert error["details"] == {"execution_id": child.id, "component_id": "fail", "line": 0, "details": {"sku": 7}}
    assert "there is none left" in error["message"]


async def test_a_failure_that_nobody_handles_fails_the_parent(api: Api) -> None:
    session = await api.session(executes("stock"))
    await api.put(fails(), alias="stock")
    parent = await run(api, session)
    assert (parent.state, parent.failure.reason, parent.failure.component_id) == (FAILED, "OUT_OF_STOCK", "run")


async def test_each_attempt_that_the_policy_allows_starts_another(api: Api) -> None:
    policy = {"retry": {"maximum_attempts": 3, "initial_interval": "0.01s"}}
    session = await api.session(executes("stock", policy=policy))
    await api.put(fails(), alias="stock")
    parent = await run(api, session)
    assert parent.state == FAILED
    assert [child.state for child in await children_of(api, parent.id)] == [FAILED] * 3


async def test_a_scope_catches_the_failure_and_what_is_last_may_start_another(api: Api) -> None:
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try"), flows.component("end", "flow.end")]
    parts += inside(
        "try",
        flows.component("buy", "workflow.execute", definition="stock"),
        flows.component("tidy", "workflow.execute", definition="double", input={"n": 1}),
    )
    ways = ("start.next try", "try.body buy", "try.finally tidy", "try.failure end")
    session = await api.session(flows.document(parts, controls(*ways) + datas("try.error end.value")))
    await api.put(fails(), alias="stock")
    await api.put(doubles(), alias="double")
    parent = await run(api, session)
    assert (parent.state, get_value(parent, "result")["reason"]) == (COMPLETED, "OUT_OF_STOCK")
    assert [child.state for child in await children_of(api, parent.id)] == [FAILED, COMPLETED]


async def test_a_stop_goes_down_to_what_was_started_and_to_what_that_has_started(api: Api) -> None:
    session = await api.session(executes("middle"))
    await api.put(executes("last"), alias="middle")
    await api.put(waiting(), alias="last")
    parent = await begin(api, session)
    child = await child_of(api, parent.id)
    grandchild = await child_of(api, child.id)
    await ask(api, "StopExecution", execution=parent.id)
    for each in (parent, child, grandchild):
        assert (await events(api, each.id))[-1].type == "flow.stopped"
        assert await state(api, each.id) == STOPPED


async def test_what_is_stopped_by_somebody_else_fails_the_step(api: Api) -> None:
    session = await api.session(executes("last", handled=True))
    await api.put(waiting(), alias="last")
    parent = await begin(api, session)
    await ask(api, "StopExecution", execution=(await child_of(api, parent.id)).id)
    await events(api, parent.id)
    error = get_value((await ask(api, "GetExecution", execution=parent.id)).execution, "result")
    assert error["reason"] == "CHILD_STOPPED"


async def test_what_takes_too_long_fails_the_step_and_is_stopped(api: Api) -> None:
    session = await api.session(executes("last", handled=True, timeout=0.05))
    await api.put(waiting(), alias="last")
    parent = await run(api, session)
    assert get_value(parent, "result")["reason"] == "TIMEOUT"
    child = await child_of(api, parent.id)
    assert (await events(api, child.id))[-1].type == "flow.stopped"


async def test_a_scope_that_is_left_stops_what_its_steps_have_started(api: Api) -> None:
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [flows.component("try", "flow.try"), flows.component("then", "flow.wait", name="then")]
    parts += inside(
        "try",
        flows.component("run", "workflow.execute", definition="last"),
        flows.component("leave", "flow.wait", name="leave"),
        flows.component("out", "flow.end"),
    )
    ways = (
        "start.next try",
        "try.body run",
        "try.body leave",
        "leave.received out",
        "try.success then",
        "then.received end",
    )
    session = await api.session(flows.document(parts, controls(*ways)))
    await api.put(waiting(), alias="last")
    parent = await begin(api, session)
    child = await child_of(api, parent.id)
    await ask(api, "SignalExecution", execution=parent.id, name="leave", value_json="1")
    assert (await events(api, child.id))[-1].type == "flow.stopped"
    assert await state(api, parent.id) == pb.EXECUTION_STATE_WAITING
    await ask(api, "SignalExecution", execution=parent.id, name="then", value_json="1")
    assert (await events(api, parent.id))[-1].type == "flow.exited"


async def test_what_a_deleted_blob_was_to_give_fails_the_step(api: Api) -> None:
    session = await api.session(executes("acme/other@draft/last", handled=True))
    await workflow(api, "other", last=waiting())
    parent = await begin(api, session)
    await child_of(api, parent.id, "acme/other")
    await ask(api, "DeleteBlob", blob="acme/other", cascade=True)
    await events(api, parent.id)
    error = get_value((await ask(api, "GetExecution", execution=parent.id)).execution, "result")
    assert error["reason"] == "CHILD_DELETED"


async def test_what_a_deleted_blob_has_started_elsewhere_is_stopped(api: Api) -> None:
    session = await api.session(executes("acme/other@draft/last"))
    await workflow(api, "other", last=waiting())
    child = await child_of(api, (await begin(api, session)).id, "acme/other")
    await ask(api, "DeleteBlob", blob="acme/pipeline", cascade=True)
    assert (await events(api, child.id))[-1].type == "flow.stopped"


async def test_who_may_not_write_to_the_other_workflow_starts_nothing_there(api: Api, server: Served) -> None:
    session = await api.session(executes("acme/other@draft/double", handled=True))
    await workflow(api, "other", double=doubles())
    key = planted(
        (await ask(api, "CreateApiKey", parent="acme/pipeline", role=access_pb2.ROLE_WRITE)).key, "a key of one blob"
    )
    async with connected(server.address, key) as theirs:
        parent = await run(theirs, session)
    assert get_value(parent, "result")["reason"] == "PERMISSION_DENIED"
    assert await listed(api, "acme/other") == []


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("none", "NOT_FOUND"),
        ("acme/none/double", "NOT_FOUND"),
        ("acme/pipeline@7/double", "NOT_FOUND"),
    ],
)
async def test_what_is_not_there_fails_the_step(api: Api, definition: str, reason: str) -> None:
    session = await api.session(executes(definition, handled=True))
    assert get_value(await run(api, session), "result")["reason"] == reason


async def test_an_input_that_the_definition_does_not_have_fails_the_step(api: Api) -> None:
    session = await api.session(executes("double", handled=True, input={"m": 1}))
    await api.put(doubles(), alias="double")
    error = get_value(await run(api, session), "result")
    assert error["reason"] == "INVALID_VALUE"
    assert "'m'" in error["message"]


async def test_one_that_starts_itself_comes_as_deep_as_it_may(api: Api) -> None:
    session = await api.session(executes("workflow"))
    await ask(api, "UpdateLimit", parent="acme/pipeline", name="workflow.execution_depth", value=3)
    parent = await run(api, session)
    assert (parent.state, parent.failure.reason) == (FAILED, "LIMIT_EXCEEDED")
    assert "workflow.execution_depth" in parent.failure.message
    assert [each.state for each in await listed(api)] == [FAILED] * 4


async def test_an_execution_has_as_many_children_at_once_as_it_may(api: Api) -> None:
    parts = [flows.component("start", "flow.start")]
    parts += [flows.component(f"run-{number}", "workflow.execute", definition="last") for number in range(3)]
    ways = controls(*(f"start.next run-{number}" for number in range(3)))
    session = await api.session(flows.document(parts, ways))
    await api.put(waiting(), alias="last")
    await ask(api, "UpdateLimit", parent="acme/pipeline", name="workflow.children_per_execution", value=2)
    parent = await run(api, session)
    assert (parent.state, parent.failure.reason) == (FAILED, "LIMIT_EXCEEDED")
    children = await children_of(api, parent.id)
    assert len(children) == 2
    assert {child.state for child in children} <= {pb.EXECUTION_STATE_STOPPING, STOPPED}
    for child in children:
        assert (await events(api, child.id))[-1].type == "flow.stopped"


async def test_watchers_are_told_the_same_each_time(api: Api) -> None:
    session = await api.session(executes("stock", handled=True))
    await api.put(executes("fails"), alias="stock")
    await api.put(fails(), alias="fails")
    parent = await run(api, session)
    child = await child_of(api, parent.id)
    told = lines([shown(event) for each in (parent, child) for event in await events(api, each.id)])
    known = {
        parent.blob_id: "BLOB",
        parent.id: "PARENT",
        child.id: "CHILD",
        (await child_of(api, child.id)).id: "GRANDCHILD",
    }
    for id_, name in known.items():
        told = [line.replace(id_, name) for line in told]
    assert told == golden("executed_events.jsonl"), "\n".join(told)
