"""The operations of `data.value`: what writing to a value does to what is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import counters
import flows
import pytest
from blobhub.v1 import execution_pb2 as pb
from blobhub_server.blobtypes import json_text
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.components.operations import OPERATIONS, initial, operate
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import Severity
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import Completion, Record, RunStep
from blobhub_server.workflow.values import are_same, unwrap
from counters import COUNTER
from hypothesis import given
from hypothesis import strategies as st
from interpreting import REGISTRY, Run, compiled, replay
from runs import run
from scale import scaled
from served import Api

INTEGERS = st.integers(-(1 << 40), 1 << 40)
KEYS = st.text(max_size=3) | st.sampled_from(["type", "text", "json", "integer", "messages", "message"])
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
TYPED = st.sampled_from(["text", "json", "integer", "messages", "message", "thread"])
OBJECTS = st.builds(lambda type_, rest: rest | {"type": type_}, TYPED | VALUES, st.dictionaries(KEYS, VALUES, max_size=3))
"""What is, or looks like, a value object."""


def many_steps(operation: str, persistence: str, given_values: list[Any], own: Any = None) -> str:
    """Start, one script for each value that gives it to the value of a persistence; the end's result is that value."""
    names = [f"step-{number}" for number in range(len(given_values))]
    value = counters.session_value(operation=operation, value=own)
    for port in value["ports"]:
        if port["route"] == "persistence":
            port["value"] = persistence
    components = [flows.component("start", "flow.start"), value, flows.component("end", "flow.end")]
    components += [flows.component(name, "logic.code", code="pass") for name in names]
    order = ["start", *names, "end"]
    connections = [flows.control(a, b, "next" if a == "start" else "success") for a, b in pairwise(order)]
    connections += [flows.data(name, "result", COUNTER, "value") for name in names]
    return flows.document(components, [*connections, flows.data(COUNTER, "value", "end", "value")])


def ran(operation: str, persistence: str, given_values: list[Any], **how: Any) -> Run:
    """An execution of that, whose scripts give these values."""
    values = iter(given_values)
    run = Run(compiled(many_steps(operation, persistence, given_values, **how))).start()
    return run.finish(lambda command: Outcome(route="success", outputs={"result": next(values)}))


def folded(operation: str, given_values: list[Any]) -> Any:
    """What the values come to, by the plain meaning of an operation."""
    match operation:
        case "add":
            return sum(given_values)
        case "append":
            return given_values
        case "merge":
            return {key: value for each in given_values for key, value in each.items()}
        case _:
            return given_values[-1]


GIVEN = {
    "set": VALUES,
    "add": INTEGERS,
    "append": VALUES,
    "merge": st.dictionaries(st.text(max_size=3), INTEGERS, max_size=3),
}


@pytest.mark.parametrize("persistence", ["session", "execution"])
@pytest.mark.parametrize("operation", OPERATIONS)
@given(data=st.data())
def test_values_that_are_written_come_to_what_the_operation_says(
    operation: str, persistence: str, data: st.DataObject
) -> None:
    written = data.draw(st.lists(GIVEN[operation], min_size=1, max_size=5))
    run = ran(operation, persistence, written)
    expected = folded(operation, written)
    assert are_same(run.state.result, unwrap(expected))
    assert run.written == ({COUNTER: expected} if persistence == "session" else {})
    assert replay(run.graph, [Record.from_json(json.loads(json.dumps(r.to_json()))) for r in run.records]) == run.state


@given(st.sampled_from(OPERATIONS), VALUES | OBJECTS, VALUES | OBJECTS)
def test_an_operation_gives_a_value_or_says_which_type_it_needs_and_changes_nothing_that_was_there(
    operation: str, current: Any, value: Any
) -> None:
    before = json.dumps([current, value])
    failed = None
    try:
        json_text.encode("value", operate(operation, current, value))
    except ComponentError as error:
        failed = error
    assert failed is None or (failed.reason, failed.retryable) == ("OPERATION_TYPE", False)
    assert failed is None or operation in failed.message
    assert json.dumps([current, value]) == before


@given(st.sampled_from(["add", "merge"]), st.data())
def test_the_order_of_additions_and_of_merges_of_different_keys_does_not_matter(operation: str, data: st.DataObject) -> None:
    strategy = INTEGERS if operation == "add" else st.sampled_from([{"a": 1}, {"b": 2}, {"c": {"d": 3}}])
    one, other = data.draw(strategy), data.draw(strategy)
    start = initial(operation)
    assert operate(operation, operate(operation, start, one), other) == operate(
        operation, operate(operation, start, other), one
    )


WRAPPED = [
    ("add", {"type": "integer", "integer": 2}, 3, {"type": "integer", "integer": 5}),
    ("add", {"type": "integer", "integer": 2}, 0.5, {"type": "float", "float": 2.5}),
    ("add", {"type": "float", "float": 0.5}, {"type": "integer", "integer": 1}, {"type": "float", "float": 1.5}),
    ("append", {"type": "json", "json": [1]}, 2, {"type": "json", "json": [1, 2]}),
    ("append", {"type": "messages", "messages": []}, {"role": "user"}, {"type": "messages", "messages": [{"role": "user"}]}),
    (
        "merge",
        {"type": "json", "json": {"a": 1}},
        {"type": "json", "json": {"b": 2}},
        {"type": "json", "json": {"a": 1, "b": 2}},
    ),
]


@pytest.mark.parametrize(("operation", "current", "value", "after"), WRAPPED)
def test_a_value_object_stays_one(operation: str, current: Any, value: Any, after: Any) -> None:
    assert are_same(operate(operation, current, value), after)


WRONG = [
    ("add", "text", 1),
    ("add", 1, "1"),
    ("add", True, 1),
    ("add", None, 1),
    ("append", {"a": 1}, 1),
    ("append", {"type": "thread", "thread": {}}, 1),
    ("merge", {"a": 1}, [1]),
    ("merge", {"type": "file", "file": {}}, {"a": 1}),
]


@pytest.mark.either_database
@pytest.mark.parametrize("way", ["expression", "code"])
async def test_an_operation_on_a_value_of_another_type_fails_the_step_and_changes_nothing(api: Api, way: str) -> None:
    session_id = await api.session(counters.expression())
    for number, (operation, current, value) in enumerate(WRONG):
        text = repr(value)
        settings = {"expression": text} if way == "expression" else {"code": f"set_data_output('result', {text})"}
        step = flows.component("write", f"logic.{way}", **settings)
        await api.put(counters.writer(step, reads=False, operation=operation), alias=f"wrong-{number}")
        await counters.put(api, session_id, current)
        execution = await run(api, session_id, f"wrong-{number}")
        assert (execution.failure.reason, execution.state) == ("OPERATION_TYPE", pb.EXECUTION_STATE_FAILED)
        assert operation in execution.failure.message
        assert await counters.count_in(api, session_id) == current


GROWING: list[tuple[str, Any, str]] = [
    ("append", ["x" * 1_000_000], "'y' * 100_000"),
    ("merge", {"x": "x" * 1_000_000}, "{'y': 'y' * 100_000}"),
    ("add", (1 << 64) - 1, "1"),
    ("add", 1.7e308, "1.7e308"),
]


@pytest.mark.either_database
async def test_an_operation_that_leads_beyond_the_bounds_of_a_value_fails_the_step(api: Api) -> None:
    session_id = await api.session(counters.expression())
    for number, (operation, current, text) in enumerate(GROWING):
        script = counters.script(f"set_data_output('result', {text})", operation=operation)
        await api.put(script, alias=f"growing-{number}")
        await counters.put(api, session_id, current)
        execution = await run(api, session_id, f"growing-{number}")
        assert execution.failure.reason == "INVALID_OUTPUT", execution.failure
        assert await counters.count_in(api, session_id) == current


def test_a_step_whose_operation_cannot_be_applied_takes_its_failure_route_and_is_not_run_again() -> None:
    step = flows.component("write", "logic.code", code="pass", policy={"retry": {"maximum_attempts": 5}})
    document = json.loads(counters.writer(step, reads=False, operation="add"))
    document["components"].append(flows.component("caught", "flow.end", value="caught"))
    document["connections"].append(flows.control("write", "caught", "failure"))
    run = Run(compiled(json.dumps(document)), session={COUNTER: "text"}).start()
    runs: list[RunStep] = []

    def outcome(command: RunStep) -> Outcome:
        runs.append(command)
        return Outcome(route="success", outputs={"result": 1})

    assert run.finish(outcome).state.result == "caught"
    assert len(runs) == 1
    assert run.written == {}


MANY = scaled(200, least=20)
LISTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "append": ("0", lambda value: value == [0] * MANY),
    "merge": ("{'key': 1}", lambda value: value == {"key": 1}),
}


@pytest.mark.parametrize(("operation", "text", "holds"), [(name, *rest) for name, rest in LISTS.items()], ids=LISTS)
async def test_what_many_executions_append_or_merge_at_once_is_all_there(
    api: Api, operation: str, text: str, holds: Callable[[Any], bool]
) -> None:
    ways = [
        counters.expression(text, operation=operation),
        counters.script(f"set_data_output('result', {text})", operation=operation),
    ]
    session_id = await api.session(ways[0])
    await api.put(ways[1], alias="script")
    await asyncio.gather(
        counters.run_many(api, session_id, MANY // 2), counters.run_many(api, session_id, MANY - MANY // 2, "script")
    )
    assert holds(await counters.count_in(api, session_id))


def problems_of(component: dict[str, Any], *connections: dict[str, Any]) -> list[tuple[str, str]]:
    document = json.loads(counters.writer(flows.component("count", "logic.expression", expression="1"), reads=False))
    document["components"] = [c for c in document["components"] if c["id"] != COUNTER] + [component]
    document["connections"] += connections
    found = check(parse(json.dumps(document).encode()), REGISTRY)
    return [(problem.path, problem.message) for problem in found if problem.severity is Severity.ERROR]


def test_an_operation_that_there_is_none_of_is_an_error_at_its_place() -> None:
    ((path, message),) = problems_of(counters.session_value(operation="increment"))
    assert path == "components[3].ports[3].value"
    assert "`set`, `add`, `append` or `merge`" in message


def test_an_operation_on_a_constant_is_an_error() -> None:
    constant = flows.component(COUNTER, "data.value", operation="add", value=1)
    found = problems_of(constant)
    assert (
        "components[3].ports[0].value",
        "'operation' has no effect on a value of persistence `definition`, which is a constant",
    ) in found


def test_a_value_that_the_operation_cannot_begin_with_is_an_error() -> None:
    value = flows.component(COUNTER, "data.value", alias=COUNTER, persistence="session", operation="add", value="text")
    ((path, message),) = problems_of(value)
    assert path == "components[3].ports[3].value"
    assert "`add` needs a number" in message


@pytest.mark.parametrize("port", ["operation", "alias", "persistence"])
def test_nothing_can_be_connected_to_the_settings_of_a_value(port: str) -> None:
    connected = flows.data("count", "result", COUNTER, port)
    ((path, message),) = problems_of(counters.session_value(operation="add"), connected)
    assert path == "connections[4].target_port"
    assert "no connection" in message


def rereading(session: dict[str, Any]) -> tuple[Run, RunStep]:
    """An execution whose script reads and writes the counter, and the command to run the script."""
    run = Run(compiled(counters.script(value=0)), session=session).start()
    (command,) = run.pending()
    return run, command


def test_a_run_of_a_script_on_a_value_that_another_has_changed_does_not_count_and_is_asked_for_again() -> None:
    run, command = rereading({COUNTER: 1})
    outcome = Outcome(route="success", outputs={"result": 2})
    run.session = {COUNTER: 5}
    ended = Completion(step=command.step, attempt=command.attempt, result=outcome, session={COUNTER: 1})
    assert run.tell(ended) == []
    assert run.pending() == [command]
    assert run.written == {}


@pytest.mark.parametrize(("before", "now"), [({COUNTER: 1}, {COUNTER: True}), ({COUNTER: None}, {}), ({}, {COUNTER: 0})])
def test_values_that_python_calls_equal_are_others_to_a_script(before: dict[str, Any], now: dict[str, Any]) -> None:
    run, command = rereading(before)
    run.session = now
    outcome = Outcome(route="success", outputs={"result": 2})
    assert run.tell(Completion(step=command.step, attempt=1, result=outcome, session=before)) == []


def test_the_log_says_what_the_run_of_a_script_was_given_where_that_is_not_what_it_was_entered_with() -> None:
    for now in (1, 5):
        run, command = rereading({COUNTER: 1})
        run.session = {COUNTER: now}
        outcome = Outcome(route="success", outputs={"result": now + 1})
        records = run.tell(Completion(step=command.step, attempt=1, result=outcome, session={COUNTER: now}))
        exited = next(record for record in records if record.type == "processor.exited")
        assert exited.private.get("session") == (None if now == 1 else {COUNTER: 5})
        assert run.state.result == now + 1
        assert run.written == {COUNTER: now + 1}
        assert replay(run.graph, run.records) == run.state


def test_a_script_that_writes_no_session_value_is_not_run_again_because_of_what_it_read() -> None:
    run, command = rereading({COUNTER: 1})
    run.session = {COUNTER: 5}
    ended = Completion(step=command.step, attempt=1, result=Outcome(route="success"), session={COUNTER: 1})
    assert run.tell(ended)
    assert run.state.phase == "completed"
