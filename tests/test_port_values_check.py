"""What check says about expressions and templates in ports, and about what expressions refer to."""

from __future__ import annotations

from typing import Any

import flows
import grpc
import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2
from blobhub_client import get_value
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import Problem
from blobhub_server.workflow.definitions.reader import parse
from calling import ask
from google.protobuf import json_format
from interpreting import REGISTRY
from port_values import ending, expression, giving, shared, template, variable
from runs import run
from served import Api

pytestmark = pytest.mark.either_database

CONSTANT = flows.value("five", "five", value=5)
SCRIPT = flows.component("script", "logic.code", code="set_data_output('n', 1)")
JOIN = flows.component("join", "flow.join", mode=expression("'all'"))


def problems(document: str) -> list[Problem]:
    return list(check(parse(document.encode()), REGISTRY))


def told(document: str) -> list[tuple[str, str, str, int, int]]:
    return [(p.type.value, p.path, p.message, p.line, p.column) for p in problems(document)]


TEXT_FOR_FLOAT = "'seconds' takes a value of type float, and this template gives a text"
PATH = "components[5].ports[0].value"


def around(value: Any) -> str:
    """A definition with something of everything, and an end with a value at PATH."""
    used = giving("used", "[input.name, session.visits, values.five]")
    return ending(value, variable("name"), shared("visits"), CONSTANT, steps=[used])


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("1 + nothing", 5, "there is no name `nothing`; there are error, input, session, steps, values"),
        ("steps.fetch.result", 1, "there is no component `fetch`; there are end, start, used"),
        ("1 + steps.used.body", 5, "`used` never sets the output `body`; there are error, result"),
        ("steps.end.value", 1, "`end` never sets the output `value`; there are none"),
        ("steps['the-name'].value", 1, "`the-name` is a `data.value`, which is no step: it is read by its alias"),
        ("steps[input.name].result", 1, 'written out, as in `steps.fetch.body` or `steps["fetch"]["body"]`'),
        ("steps.used", 1, "`steps` is read by names that are written out"),
        ("len(values)", 5, "`values` is read by names that are written out"),
        ("input.nam", 1, "there is no `data.value` of persistence `execution` with the alias `nam`; there is name"),
        ("values.nam", 1, "of persistence `execution` or `definition` with the alias `nam`; there are five, name"),
        ("session.name", 1, "with the alias `name`; there is one of the execution: `values.name`"),
        ("input.five", 1, "with the alias `five`; it is a constant: `values.five`"),
        ("values.visits", 1, "with the alias `visits`; it is one of the session: `session.visits`"),
        ("default(steps.typo.result, 1)", 9, "there is no component `typo`"),
        ("has(input.typo)", 5, "with the alias `typo`"),
        ("error.message", 1, "no route `failure` leads here, so there is no `error`"),
        ("index + 1", 1, "there is `index` inside of a `flow.each` or a `flow.loop` alone"),
        ("[item for item in item]", 19, "there is `item` inside of a `flow.each` alone"),
    ],
)  # fmt: skip
def test_names_are_resolved_with_line_and_column(text: str, column: int, message: str) -> None:
    ((type_, path, words, line, found),) = told(around(expression(text)))
    assert (type_, path, line, found) == ("UNKNOWN_NAME", f"{PATH}.expression", 1, column)
    assert message in words
    ((type_, path, words, line, found),) = told(around(template(f"Dear\n you: {{{{ {text} }}}}.")))
    assert (type_, path, line, found) == ("UNKNOWN_NAME", f"{PATH}.template", 2, column + 9)
    assert message in words


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (expression("input.name +"), (1, 13)),
        (expression(""), (1, 1)),
        (template("a {{ input.name"), (1, 3)),
        (template("a\n {{ input. }}"), (2, 12)),
        (template("{{ }} {{ lambda: 1 }}"), (1, 4)),
    ],
)
def test_what_is_no_expression_is_told_with_its_place(value: dict[str, str], place: tuple[int, int]) -> None:
    type_, path, _, line, column = told(around(value))[0]
    assert (type_, path) == ("INVALID_EXPRESSION", f"{PATH}.{value['type']}")
    assert (line, column) == place


def test_names_that_nobody_has_in_expressions_of_components_are_told_with_those_there_are() -> None:
    document = ending(1, steps=[giving("it", "n + steps.it.other + nothing + error", n=1, input=2)])
    assert [(p.type.value, p.path, p.column) for p in problems(document)] == [
        ("UNKNOWN_NAME", "components[1].ports[0].value", 5),
        ("UNKNOWN_NAME", "components[1].ports[0].value", 22),
        ("UNKNOWN_NAME", "components[1].ports[0].value", 32),
    ]
    assert "there are error, input, inputs, n, session, steps, values" in problems(document)[1].message
    assert told(ending(1, steps=[giving("it", "input.what", input=2)])) == [], "an input comes first"


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (JOIN, "must be a constant: 'mode' of flow.join is the same for all steps"),
        (flows.value("v", "a", persistence="execution", value=expression("1")), "'value' of data.value holds a value"),
        (flows.component("v", "data.value", alias=template("a{{ 1 }}")), "'alias' of data.value holds a value"),
        (
            flows.component("c", "logic.code", code="pass", language=template("python")),
            "'language' of logic.code is the same",
        ),
    ],
    ids=str,
)
def test_a_setting_that_is_the_same_for_all_steps_is_no_expression(component: dict[str, Any], message: str) -> None:
    found = [problem for problem in problems(ending(1, component)) if problem.severity == "ERROR"]
    assert [problem.type for problem in found][:1] == ["TYPE_MISMATCH"]
    assert message in found[0].message


def test_a_template_that_is_always_a_text_is_told_where_another_type_is_taken() -> None:
    delays = [flows.component(f"d{number}", "flow.delay", seconds=value) for number, value in enumerate(
        [template("{{ 5 }}"), template("{{ 5 }}0"), expression("input.n")])]  # fmt: skip
    assert [problem for problem in told(ending(1, variable("n"), *delays)) if problem[0] == "TYPE_MISMATCH"] == [
        ("TYPE_MISMATCH", "components[3].ports[0].value.template", TEXT_FOR_FLOAT, 0, 0)
    ]


def test_a_connection_beside_an_expression_is_warned_of_and_a_required_port_that_has_one_is_not_missing() -> None:
    connected = [flows.data("the-name", "value", "end", "value")]
    document = ending(template("nobody"), variable("name"), connections=connected)
    ((type_, path, message, _, _),) = told(document)
    assert (type_, path) == ("SEVERAL_SOURCES", "components[2].ports[0].value")
    assert "only while that has brought no value" in message
    assert told(ending(1, flows.component("d", "flow.delay", seconds=expression("1"))))[0][0] == "UNREACHABLE_COMPONENT"


def test_a_value_that_an_expression_reads_is_not_told_to_be_unused() -> None:
    assert told(around(1)) == []
    assert [problem[0] for problem in told(ending(1, variable("name"), CONSTANT, shared("visits")))] == ["UNUSED_VALUE"] * 3


def test_more_expressions_than_there_may_be_are_not_read_one_by_one() -> None:
    holes = [giving(f"s{number}", "1", more=template("{{ x }}" * 2_500)) for number in range(3)]
    type_, path, message, _, _ = told(ending(1, *holes))[0]
    assert (type_, path) == ("INVALID_DOCUMENT", "components")
    assert "at most 5000 expressions" in message


async def test_check_and_put_say_the_same_of_documents_and_of_messages(api: Api) -> None:
    await api.session(around(template("Dear {{ input.name }}")))
    content = (await ask(api, "GetDefinition", definition=f"{DRAFT}/workflow")).content
    for value, type_ in ((expression("input.nam"), "UNKNOWN_NAME"), (template("{{ 1 +"), "INVALID_EXPRESSION")):
        port = content.components[5].ports[0]
        assert port.route == "value"
        json_format.ParseDict(value, port.value)
        for subject in ({"document": around(value)}, {"content": content}):
            answer = await ask(api, "CheckDefinition", revision=DRAFT, **subject)
            (problem,) = answer.problems
            assert (problem.path, problem.line) == (f"{PATH}.{value['type']}", 1)
            assert definition_pb2.DefinitionProblemType.Name(problem.type) == f"DEFINITION_PROBLEM_TYPE_{type_}"
            put = ask(api, "PutDefinition", revision=DRAFT, alias="other", **subject)
            if type_ == "UNKNOWN_NAME":  # It may stand in a draft, as work that goes on, and is not run.
                await put
            else:
                await expect_refusal(put, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DEFINITION")


async def test_a_message_with_a_template_is_run_as_its_document_is(api: Api) -> None:
    session = await api.session(ending(template("Dear {{ input.name }}"), variable("name", "Ada")))
    content = (await ask(api, "GetDefinition", definition=f"{DRAFT}/workflow")).content
    await ask(api, "PutDefinition", revision=DRAFT, alias="typed", content=content)
    for definition in ("workflow", "typed"):
        assert get_value(await run(api, session, definition, name="Grace"), "result") == "Dear Grace"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("'5'", "a text"),
        ("f'{input.n}'", "a text"),
        ("upper(input.n)", "a text"),
        ("[input.n]", "a list"),
        ("{'n': input.n}", "an object"),
        ("input.n > 5", "True or False"),
        ("not input.n", "True or False"),
        ("has(input.n)", "True or False"),
        ("split(input.n)", "a list"),
        ("None", "None"),
        ("5", ""),
        ("len(input.n)", ""),
        ("input.n + 1", ""),
        ("[input.n][0]", ""),
    ],
)
def test_an_expression_that_never_gives_what_the_port_takes_is_told(text: str, kind: str) -> None:
    delay = flows.component("wait", "flow.delay", seconds=expression(text))
    found = [p[2] for p in told(ending(1, variable("n"), delay)) if p[0] == "TYPE_MISMATCH"]
    assert found == ([f"'seconds' takes a value of type float, and this expression gives {kind}"] if kind else [])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Dear {{ input.name }}", "is a plain text, in which nothing is filled in"),
        ({"type": "text", "text": "{{steps.used.result}}"}, "is a plain text"),
        (
            {**expression("1"), "note": "x"},
            "is plain JSON, and not evaluated: of expressions there are `type` and `expression`",
        ),
        ({"type": "template", "template": 5}, "is plain JSON, and not evaluated: of templates"),
        ("{{ something }}", ""),
        ({"type": "expression", "name": "of another system"}, ""),
    ],
)
def test_a_value_that_reads_like_a_template_and_is_none_is_warned_of(value: Any, said: str) -> None:
    found = told(around(value))
    assert [problem[0] for problem in found] == (["TYPE_MISMATCH"] if said else [])
    assert said in "".join(problem[2] for problem in found)


def test_a_script_may_have_double_braces() -> None:
    script = flows.component("script", "logic.code", code='set_data_output("n", "{{ input.name }}")')
    assert told(ending(expression("steps.script.n"), steps=[script])) == []
