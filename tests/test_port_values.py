"""Ports whose values are expressions and templates: what they see, when they are evaluated, and what they cost."""

from __future__ import annotations

import json
from typing import Any

import flows
import pytest
from blobhub_server.workflow.components.contract import Outcome
from blobhub_server.workflow.interpreter import Completion, ExecutionState, Started, advance, reread
from interpreting import Run, compiled, replay
from port_values import ending, expression, giving, shared, template, variable

FETCH = giving("fetch", "{'body': {'total': 100, 'tags': ['a', 'b'], 'note': None}, 'a-b': 1}")

SETS = "set_data_output('got', inputs.given)"


def result(document: str, session: dict[str, Any] | None = None, **inputs: Any) -> Any:
    """The result of an execution, or the reason and the message of its failure."""
    run = Run(compiled(document), session=session).start(**inputs)
    assert replay(run.graph, run.records) == run.state
    error = run.state.error
    return (error["reason"], error["message"]) if error else run.state.result


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (expression("steps.fetch.result.body.total * 1.5"), 150.0),
        (expression("steps.fetch.result"), {"body": {"total": 100, "tags": ["a", "b"], "note": None}, "a-b": 1}),
        (expression('steps["fetch"]["result"]["a-b"]'), 1),
        (expression("{'n': [tag + input.name for tag in steps.fetch.result.body.tags]}"), {"n": ["aAda", "bAda"]}),
        (expression("[values.name, values.limit, input['name']]"), ["Ada", 5, "Ada"]),
        (expression("session.visits + 1"), 8),
        (expression("session['who/else']"), "nobody"),
        (expression("steps.fetch.result.body.note"), None),
        (template("Dear {{ input.name }}, {{ steps.fetch.result.body.total }} is due."), "Dear Ada, 100 is due."),
        (template("{{ steps.fetch.result.body.tags }}"), ["a", "b"]),
        (template(" {{ steps.fetch.result.body.tags }}"), " ['a', 'b']"),
        (template('{{ {"a": {"b": values.limit}}}}'), {"a": {"b": 5}}),
        (template('{{ "{{" }} and {{ "}}" }}'), "{{ and }}"),
        (template("no name"), "no name"),
        ("Dear {{ input.name }}", "Dear {{ input.name }}"),
        ({"type": "text", "text": "{{ input.name }}"}, "{{ input.name }}"),
        ({"url": expression("input.name")}, {"url": expression("input.name")}),
        ({"type": "json", "json": template("{{ input.name }}")}, template("{{ input.name }}")),
        ({**expression("input.name"), "more": 1}, {**expression("input.name"), "more": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_a_port_has_the_value_of_its_expression_or_template_and_plain_values_stay_as_they_are(
    value: Any, expected: Any
) -> None:
    others = (
        variable("name", "nobody"),
        flows.value("limit", "limit", value={"type": "integer", "integer": 5}),
        shared("visits"),
        shared("who/else", "nobody"),
    )
    document = ending(value, *others, steps=[FETCH])
    session = {"visits": {"type": "integer", "integer": 7}}
    assert result(document, session, name={"type": "text", "text": "Ada"}) == expected


def test_what_comes_by_a_connection_or_as_input_data_is_data_whatever_it_looks_like() -> None:
    connected = [flows.data("the-name", "value", "end", "value")]
    assert result(ending(1, variable("name"), connections=connected), name=expression("1 + 1")) == expression("1 + 1")
    assert result(ending(expression("input.name"), variable("name")), name=template("{{ 1 }}")) == template("{{ 1 }}")


def test_input_is_what_was_given_and_values_what_is_there_now() -> None:
    document = ending(
        expression("[input.n, values.n]"),
        variable("n", 1),
        steps=[giving("more", "values.n + 10")],
        connections=[flows.data("more", "result", "the-n", "value")],
    )
    assert result(document) == [1, 11]
    assert result(document, n=5) == [5, 15]


def test_a_connection_that_has_a_value_wins_and_the_expression_is_not_evaluated_then() -> None:
    connected = [flows.data("the-name", "value", "end", "value")]
    document = ending(expression("1 // 0"), variable("name"), connections=connected)
    assert result(document, name="Ada") == "Ada"
    assert result(document)[0] == "EXPRESSION_ERROR"
    assert result(ending(template("nobody"), variable("name"), connections=connected)) == "nobody"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps.late.result", "the step `late` has not given the output `result`"),
        ("input.name", "the execution was not given the input `name`"),
        ("values.name + 1", "nothing has set the value `name`"),
        ("session.visits", "the session does not have the object `visits`"),
        ("steps.fetch.result.bodies", "there is no key `bodies`"),
    ],
)
def test_what_is_absent_fails_the_step_by_name_unless_it_is_asked_for_with_default_or_has(text: str, message: str) -> None:
    late = flows.component("late", "logic.expression", expression="1")

    def document(value: str) -> str:
        parts = json.loads(ending(expression(value), variable("name"), shared("visits"), steps=[FETCH]))
        return json.dumps(parts | {"components": [*parts["components"], late]})

    reason, words = result(document(f"[1,\n {text}]"))
    assert reason == "EXPRESSION_ABSENT"
    assert words.startswith(f"component 'end' failed: the input 'value': {message}")
    assert "(line 2, column" in words
    assert result(document(f"[default({text}, 5), has({text})]")) == [5, False]


def test_a_port_that_has_no_value_fails_its_component_which_takes_the_route_failure() -> None:
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("script", "logic.code", code="pass", given=expression("1 // 0"), language="python"),
            flows.component("end", "flow.end", value="handled"),
        ],
        [flows.control("start", "script"), flows.control("script", "end", "failure")],
    )
    run = Run(compiled(document)).start()
    assert run.state.result == "handled"
    error = next(record.public["error"] for record in run.records if record.type == "processor.error")
    assert (error["reason"], error["line"]) == ("EXPRESSION_ERROR", 1)
    assert error["message"] == "the input 'given': divides by zero (line 1, column 1)"


def test_a_step_is_run_on_what_its_ports_had_when_it_got_control_however_often_it_is_tried() -> None:
    policy = {"retry": {"maximum_attempts": 3, "initial_interval": "0s"}}
    script = flows.component("script", "logic.code", policy=policy, code=SETS, given=expression("values.n + input.n"))
    document = ending(expression("steps.script.got"), variable("n", 1), steps=[script])
    run = Run(compiled(document)).start(n=4)
    command = run.pending()[0]
    assert command.inputs == {"code": SETS, "given": 8}
    restarted = replay(run.graph, run.records)
    assert restarted == run.state
    run.finish(lambda command: Outcome(route="success", outputs={"got": command.inputs["given"]}))
    assert run.state.result == 8


def test_switches_and_expressions_see_their_inputs_first_and_then_data_of_the_execution() -> None:
    when = "steps.fetch.result.body.total > input.limit and steps.fetch.result.body.note is None"
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            variable("limit", 10),
            FETCH,
            flows.component("size", "flow.switch", cases=[{"route": "large", "when": when}]),
            giving("own", "[input, inputs.input, values.limit, factor]", input=3, factor=expression("values.limit / 4")),
            flows.component("end", "flow.end", value=expression("steps.own.result")),
            flows.component("small", "flow.end", value="small"),
        ],
        [
            flows.control("start", "fetch"),
            flows.control("fetch", "size", "success"),
            flows.control("size", "own", "large"),
            flows.control("size", "small", "default"),
            flows.control("own", "end", "success"),
        ],
    )
    assert result(document) == [3, 3, 10, 2.5]
    assert result(document, limit=1000) == "small"


def test_an_expression_that_comes_by_a_connection_sees_the_inputs_of_its_component_alone() -> None:
    told = giving("told", "1", n=1)
    told["ports"] = [port for port in told["ports"] if port["route"] != "expression"]
    connected = [flows.data("the-text", "value", "told", "expression")]
    document = ending(expression("steps.told.result"), variable("text"), steps=[told], connections=connected)
    assert result(document, text="n + 1") == 2
    reason, message = result(document, text="values.text")
    assert reason == "EXPRESSION_NAME"
    assert "there are inputs, n" in message


def test_a_new_round_sees_the_latest_outputs() -> None:
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            giving("count", "default(steps.count.result, 0) + 1"),
            flows.component("more", "flow.switch", cases=[{"route": "again", "when": "steps.count.result < 5"}]),
            flows.component("end", "flow.end", value=template("{{ steps.count.result }} rounds")),
        ],
        [
            flows.control("start", "count"),
            flows.control("count", "more", "success"),
            flows.control("more", "count", "again"),
            flows.control("more", "end", "default"),
        ],
    )
    assert result(document) == "5 rounds"


def test_all_that_one_activation_evaluates_shares_the_fuel_of_one_expression() -> None:
    heavy = "sum([x for x in range(1000)])"
    ports = {f"p{number}": expression(heavy) for number in range(4)}
    assert result(ending(1, steps=[giving("heavy", "1", **ports)])) == 1
    for step in (giving("heavy", heavy, **ports), giving("heavy", "1", more=expression(heavy), **ports)):
        reason, message = result(ending(1, steps=[step]))
        assert reason == "EXPRESSION_FUEL", message


def test_the_work_of_ports_is_taken_from_the_budget_of_the_turn() -> None:
    script = flows.component("script", "logic.code", code="pass", given=expression("sum([x for x in range(1000)])"))
    light = flows.component("script", "logic.code", code="pass", given=499500)
    spent = [
        advance(compiled(ending(1, steps=[step])), ExecutionState(step_limit=9), [Started({})], now=0.0, session={}).spent
        for step in (light, script)
    ]
    assert spent[1] - spent[0] > 30


def rereading(given: str, session: dict[str, Any]) -> Any:
    """A script that reads a value of the session by its port, and writes it."""
    script = flows.component("script", "logic.code", code="pass", given=expression(given))
    write = [flows.data("script", "n", "shared-n", "value")]
    document = ending(expression("session.n"), shared("n", 1), variable("by", 2), steps=[script], connections=write)
    run = Run(compiled(document), session=session).start()
    return run, run.pending()[0]


def test_a_script_that_writes_a_session_value_is_run_on_what_its_ports_are_worth_now() -> None:
    run, command = rereading("session.n * values.by", {"n": 10})
    assert command.inputs["given"] == 20
    assert reread(run.graph, command, {"n": 50})["given"] == 100
    assert reread(run.graph, command, {})["given"] == 2, "the value of the component itself holds"
    assert run.graph.components["script"].reread == ("n",)
    assert run.graph.session_reads == {"n"}


def test_error_is_that_of_the_component_whose_failure_led_here_last() -> None:
    told = template("{{ error.component_id }}: {{ error.reason }}, {{ steps.first.error.line }}")
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            giving("first", "1 // 0"),
            giving("second", "error.reason", more=expression("error.component_id + input.none")),
            variable("none"),
            giving("third", "[error.component_id, has(error.reason)]"),
            flows.component("end", "flow.end", value=told),
        ],
        [
            flows.control("start", "first"),
            flows.control("first", "second", "failure"),
            flows.control("second", "third", "failure"),
            flows.control("third", "end", "success"),
        ],
    )
    run = Run(compiled(document)).start()
    assert run.state.result == "second: EXPRESSION_ABSENT, 1"
    (third,) = [item for item in run.records if item.type == "processor.exited" and item.component_id == "third"]
    assert third.private["outputs"]["result"] == ["second", True]
    assert replay(run.graph, run.records) == run.state


def test_where_control_has_come_without_a_failure_there_is_no_error() -> None:
    def document(value: str) -> str:
        parts = json.loads(ending(expression(value), steps=[giving("it", "1")]))
        return json.dumps(parts | {"connections": [*parts["connections"], flows.control("it", "end", "failure")]})

    assert result(document("error.reason"))[0] == "EXPRESSION_NAME"
    assert result(document("[has(error), default(error.reason, 'none')]")) == [False, "none"]


def test_what_ports_are_worth_is_counted_in_memory_as_long_as_their_step_is_open() -> None:
    def held(value: Any) -> tuple[int, int]:
        """What a state takes while a script is run, and when it has ended."""
        script = flows.component("script", "logic.code", code=SETS, given=value)
        last = flows.component("last", "logic.code", code="pass")
        run = Run(compiled(ending(1, steps=[giving("text", "'x' * 9000"), script, last])))
        run.start()
        open_ = run.state.holdings.bytes
        run.tell(Completion(step=run.pending()[0].step, attempt=1, result=Outcome(route="success")))
        assert replay(run.graph, run.records).holdings == run.state.holdings
        return open_, run.state.holdings.bytes

    none, left = held(1)
    made, after = held(expression("steps.text.result + steps.text.result"))
    assert made - none == 18_000
    passed, gone = held(expression("steps.text.result"))
    assert passed - none == 0, "one that is handed on is there once"
    assert left == after == gone
