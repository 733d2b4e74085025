"""Expressions in workflows: what they see, how they fail, and that nobody waits for them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import flows
import grpc
import pytest
from acme import DRAFT
from blobhub.v1 import caller_pb2, definition_pb2, execution_pb2
from blobhub_client import get_value
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.workflow.interpreter import ExecutionState, Started, advance
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT
from calling import ask
from exact import INVALID, given_to
from google.rpc import error_details_pb2
from interpreting import Run, compiled
from runs import failing
from served import Api

pytestmark = pytest.mark.either_database

NAMES = "error, given, input, inputs, session, steps, values"
NESTED = "len([[x * y for x in given] for y in given])"


def one(text: str, *, policy: Any = None, **own: Any) -> str:
    """Start, one expression over the input `given` and its own values, an end with its result."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.value("given", "given", persistence="execution", value=0),
            flows.component("it", "logic.expression", policy=policy, expression=text, **own),
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "it"),
            flows.control("it", "end", "success"),
            flows.data("given", "value", "it", "given"),
            flows.data("it", "result", "end", "value"),
        ],
    )


def switch(*cases: Any, **own: Any) -> str:
    """Start, a switch, an end for each route, which gives its name."""
    routes = [*dict.fromkeys(case["route"] for case in cases), "default"]
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("which", "flow.switch", cases=list(cases), **own),
            *(flows.component(f"to-{route}", "flow.end", value=route) for route in routes),
        ],
        [flows.control("start", "which"), *(flows.control("which", f"to-{route}", route) for route in routes)],
    )


def endless(text: str) -> str:
    """Start, and an expression that fails and is tried again, round and round."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("it", "logic.expression", expression=text, given=list(range(1000))),
        ],
        [flows.control("start", "it"), flows.control("it", "it", "failure"), flows.control("it", "it", "success")],
    )


def result(document: str, **inputs: Any) -> Any:
    """The result of an execution, or the reason of its failure."""
    state = Run(compiled(document)).start(**inputs).state
    return state.error["reason"] if state.error else state.result


async def ended(api: Api, document: str, *given: Any) -> Any:
    session_id = await api.session(document)
    spec = {"definition": "workflow", "input_data": [given_to(value, text=True) for value in given]}
    return (await ask(api, "RunExecution", session=session_id, spec=spec)).execution


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("given + 1", 2**63, 2**63 + 1),
        ("given * 1.5", 2, 3.0),
        ("given / 2", 5.0, 2.5),
        ("given.a", {"type": "json", "json": {"a": 1}}, 1),
        ("given + '!'", {"type": "text", "text": "hello"}, "hello!"),
        ("[v.type for v in given]", [{"type": "text", "text": "a"}], ["text"]),
        ("inputs['unit-price'] * inputs.given", 3, 12),
        ("default(given.a, 'none')", {}, "none"),
        ("given.a", {}, "EXPRESSION_ABSENT"),
        ("given.upper", "x", "EXPRESSION_TYPE"),
        ("given ** 2", 2**63, "EXPRESSION_SIZE"),
        (NESTED, list(range(1000)), "EXPRESSION_FUEL"),
        ("1 // given", 0, "EXPRESSION_ERROR"),
    ],
)
def test_an_expression_sees_the_plain_values_of_its_inputs(text: str, given: Any, expected: Any) -> None:
    found = result(one(text, **{"unit-price": 4}), given=given)
    assert found == expected
    assert type(found) is type(expected)


def test_an_input_without_a_value_is_absent() -> None:
    parts = [
        flows.component("start", "flow.start"),
        flows.component("it", "logic.expression", ports=[flows.port("data_input", "late")], expression="default(late, 7)"),
        flows.component("end", "flow.end"),
    ]
    joined = [
        flows.control("start", "it"),
        flows.control("it", "end", "success"),
        flows.data("it", "result", "end", "value"),
    ]
    assert result(flows.document(parts, joined)) == 7
    parts[1] = flows.component("it", "logic.expression", ports=[flows.port("data_input", "late")], expression="late")
    assert result(flows.document(parts, joined)) == "EXPRESSION_NAME"


def test_a_switch_takes_the_first_case_that_is_true() -> None:
    cases = [
        {"route": "a", "when": "n > 10"},
        {"route": "b", "when": "n > 5 and not has(x)"},
        {"route": "c", "when": "True"},
    ]
    assert [result(switch(*cases, n=n)) for n in (11, 6, 1)] == ["a", "b", "c"]
    assert result(switch(*cases[:2], n=1)) == "default"


@pytest.mark.parametrize("when", ["1", "n", "None", "'yes'", "n and 2", "[n]"])
def test_a_case_that_is_neither_true_nor_false_fails_its_switch(when: str) -> None:
    run = Run(compiled(switch({"route": "a", "when": "False"}, {"route": "b", "when": when}, n=1))).start()
    assert run.state.error["reason"] == "EXPRESSION_TYPE"
    assert "case 1: must be True or False" in run.state.error["message"]


def test_all_cases_of_a_switch_share_the_fuel() -> None:
    heavy = {"route": "a", "when": "sum([x for x in n]) < 0"}
    assert result(switch(*[heavy] * 2, n=list(range(1000)))) == "default"
    assert result(switch(*[heavy] * 20, n=list(range(1000)))) == "EXPRESSION_FUEL"


@pytest.mark.parametrize("cases", [[None] * 500_000, [{"route": "a", "when": "False"}] * 257, {}, [{"route": "a"}], "a"])
def test_cases_that_come_through_a_connection_and_are_none_fail_their_switch(cases: Any) -> None:
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.value("given", "given", persistence="execution"),
            flows.component("which", "flow.switch"),
        ],
        [flows.control("start", "which"), flows.data("given", "value", "which", "cases")],
    )
    error = Run(compiled(document)).start(given=cases).state.error
    assert error["reason"] == "INVALID_INPUT"
    assert len(error["message"]) < 200


def test_all_inputs_together_are_bounded_as_a_result() -> None:
    large = ["x" * 1000] * 1000
    document = json.loads(one("inputs"))
    document["connections"] += [flows.data("given", "value", "it", f"v{number}") for number in range(20)]
    assert result(json.dumps(document), given=large) == "EXPRESSION_FUEL"
    assert result(one("inputs.given"), given=large) == large
    wrapped = {"type": "json", "json": [None] * 100_000}
    assert result(one("given"), given=wrapped) == "EXPRESSION_FUEL", "it is not the input that it is inside"


@pytest.mark.parametrize("text", [NESTED, "sum([x for x in range(2000)])"])
def test_an_expression_that_has_worked_much_ends_the_turn(text: str) -> None:
    graph = compiled(endless(text))
    turn = advance(graph, ExecutionState(step_limit=DEFAULT_STEP_LIMIT), [Started({})], now=0.0, session={})
    assert turn.state.runnable
    assert turn.state.steps < 10, "and not 200, which are as many as do no work"


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("price-times-factor.json", 2, 3.0),
        ("price-times-factor.json", 2.0, 3.0),
        ("price-times-factor.json", 2.5, 3.75),
        ("size-counts-bytes.json", None, True),
        ("switch-when-is-not-a-boolean.json", None, "EXPRESSION_TYPE"),
        ("switch-route-from-input-is-a-number.json", None, "INVALID_INPUT"),
    ],
)
def test_an_input_that_failed_turns_out_right(name: str, given: Any, expected: Any) -> None:
    document = failing(name)
    assert result(document, **({} if given is None else {"price": given})) == expected


async def test_an_expression_that_would_hold_the_server_fails_while_others_are_answered(api: Api) -> None:
    session_id = await api.session(endless(NESTED))
    spec = execution_pb2.ExecutionSpec(definition="workflow", step_limit=40)
    running = asyncio.ensure_future(ask(api, "RunExecution", session=session_id, spec=spec))
    answered = 0
    while not running.done():
        await api.callers.GetCaller(caller_pb2.GetCallerRequest())
        answered += 1
    assert (await running).execution.failure.reason == "STEP_LIMIT"
    assert answered > 1
    await api.put(one(NESTED), alias="once")
    spec = {"definition": "once", "input_data": [given_to(list(range(1000)), text=True)]}
    failed = (await ask(api, "RunExecution", session=session_id, spec=spec)).execution
    assert failed.failure.reason == "EXPRESSION_FUEL"
    assert "takes more work than the 10000 units that an expression may" in failed.failure.message
    assert failed.failure.line == 1


async def test_an_integer_of_64_bits_goes_through_an_expression_unchanged(api: Api) -> None:
    assert get_value(await ended(api, one("given - 1"), 2**64 - 1), "result") == 2**64 - 2


async def test_a_definition_whose_expression_cannot_be_read_is_refused(api: Api) -> None:
    await api.session(one("given"))
    broken = switch(
        {"route": "a", "when": "True"}, {"route": "b", "when": "n.size() > 1\n"}, {"route": "c", "when": "m"}, n=1
    )
    put = definition_pb2.PutDefinitionRequest(revision=DRAFT, alias="broken", document=broken)
    error = await expect_refusal(api.definitions.PutDefinition(put), INVALID, "INVALID_DEFINITION")
    told = error_details_pb2.BadRequest()
    assert unpack(error, told)
    assert [(item.field, item.description.partition(";")[0]) for item in told.field_violations] == [
        (
            "components[1].ports[0].value[1].when",
            "line 1, column 1: there are no methods, such as `.size`",
        ),
        ("components[1].ports[0].value[2].when", "line 1, column 1: there is no name `m`"),
    ]


async def test_a_definition_with_a_name_that_nobody_provides_is_stored_and_cannot_be_run(api: Api) -> None:
    session_id = await api.session(one("given + nobody"))
    start = ask(api, "StartExecution", session=session_id, spec={"definition": "workflow"})
    error = await expect_refusal(start, grpc.StatusCode.FAILED_PRECONDITION, "DEFINITION_NOT_RUNNABLE")
    told = error_details_pb2.BadRequest()
    assert unpack(error, told)
    (violation,) = told.field_violations
    assert violation.description == f"line 1, column 9: there is no name `nobody`; there are {NAMES}"


def test_an_input_may_have_the_name_of_a_function() -> None:
    assert result(one("len(items) + sum(items) + len", items=[1, 2], len=4)) == 9
