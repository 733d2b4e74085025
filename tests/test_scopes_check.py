"""What check says of scopes: what is inside of what, and what crosses their borders."""

from __future__ import annotations

from typing import Any

import flows
import pytest
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import ProblemType, Severity
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.services.document import to_document, to_message
from interpreting import REGISTRY
from scoping import controls, datas, inside, script, tried


def problems(parts: list[dict[str, Any]], connections: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What is wrong with scopes: the place and the message of each."""
    found = check(parse(flows.document(parts, connections).encode()), REGISTRY)
    return [(problem.path, problem.message) for problem in found if problem.type is ProblemType.INVALID_SCOPE]


def parts() -> list[dict[str, Any]]:
    """`outer` with `a` and the scope `inner`, which has `b`; outside of both are `start` and `c`."""
    return [
        flows.component("start", "flow.start"),
        flows.component("outer", "flow.try"),
        script("c"),
        *inside("outer", script("a"), flows.component("inner", "flow.try")),
        *inside("inner", script("b")),
    ]


SOUND = ("start.next outer", "outer.body a", "a.success inner", "inner.body b", "outer.success c")


def test_a_definition_with_scopes_has_nothing_wrong() -> None:
    assert check(parse(tried().encode()), REGISTRY) == []
    found = check(parse(flows.document(parts(), controls(*SOUND)).encode()), REGISTRY)
    assert found == []


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("a.success c", "it crosses the border of a scope: 'a' is inside of 'outer', and 'c' inside of none"),
        ("c.success a", "it crosses the border of a scope: 'c' is inside of none, and 'a' inside of 'outer'"),
        ("b.success a", "it crosses the border of a scope: 'b' is inside of 'inner', and 'a' inside of 'outer'"),
        ("outer.success a", "'success' of 'outer' leads outside, and 'a' is inside of it"),
        ("outer.body c", "'body' of 'outer' leads inside, and 'c' is not inside of it"),
        ("outer.finally b", "'finally' of 'outer' leads inside, and 'b' is not inside of it"),
    ],
)
def test_control_crosses_a_border_by_the_scopes_own_routes_alone(way: str, message: str) -> None:
    assert problems(parts(), controls(*SOUND, way)) == [("connections[5]", message)]


@pytest.mark.parametrize(("way", "scope"), [("a.n c.n", "outer"), ("b.n a.n", "inner"), ("b.n inner.value", "inner")])
def test_data_leaves_a_scope_as_its_value_alone(way: str, scope: str) -> None:
    found = problems(parts(), controls(*SOUND) + datas(way))
    assert [path for path, _ in found] == ["connections[5]"]
    assert found[0][1].startswith(f"data leaves {scope!r} only as its value, or into a `data.value`")


def test_expressions_see_the_steps_around_them_and_not_those_inside_of_scopes() -> None:
    def told(reader: dict[str, Any]) -> list[str]:
        found = check(parse(flows.document([*parts(), reader], controls(*SOUND)).encode()), REGISTRY)
        return [problem.message for problem in found if problem.type is ProblemType.UNKNOWN_NAME]

    outside = flows.component("reader", "logic.expression", expression="steps.a.n")
    message = "`a` is inside of the scope `outer`, and what is in there is not seen from here"
    assert told(outside) == [message]
    port = {"type": "expression", "expression": "steps.a.n"}
    assert told(flows.component("reader", "flow.end", value=port)) == [message]
    assert told({**outside, "parent_id": "outer"}) == told({**outside, "parent_id": "inner"}) == []


@pytest.mark.parametrize("way", ["c.n b.n", "a.n b.n", "outer.error a.n", "b.n kept.value", "kept.value b.n"])
def test_data_comes_in_from_around_and_values_are_everywhere(way: str) -> None:
    kept = flows.value("kept", "kept", persistence="execution", value=0)
    assert problems([*parts(), kept], controls(*SOUND) + datas(way)) == []


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ({**script("x"), "parent_id": "nowhere"}, "there is no component 'nowhere'"),
        ({**script("x"), "parent_id": "a"}, "'a' is no scope: nothing can be inside of it"),
        ({**flows.component("x", "flow.start"), "parent_id": "outer"}, "flow.start is where the execution begins"),
    ],
)
def test_a_parent_is_a_scope(component: dict[str, Any], message: str) -> None:
    ((path, told),) = problems([*parts(), component], controls(*SOUND))
    assert path == "components[6].parent_id"
    assert told.startswith(message)


def test_scopes_are_within_each_other_up_to_a_depth_and_in_no_circle() -> None:
    def deep(count: int) -> list[str]:
        made = [flows.component("start", "flow.start"), flows.component("s0", "flow.try")]
        for number in range(1, count):
            made += inside(f"s{number - 1}", flows.component(f"s{number}", "flow.try"))
        made += inside(f"s{count - 1}", script("a"))
        ways = ["start.next s0", *(f"s{n}.body s{n + 1}" for n in range(count - 1)), f"s{count - 1}.body a"]
        return [message for _, message in problems(made, controls(*ways))]

    assert deep(8) == []
    assert deep(9) == ["it is inside of 9 scopes; 8 may be within each other"]
    circle = [*inside("y", flows.component("x", "flow.try")), *inside("x", flows.component("y", "flow.try"))]
    messages = [message for _, message in problems([flows.component("start", "flow.start"), *circle], [])]
    assert messages.count("it is inside of itself, or within scopes that are") == 2


def test_a_scope_needs_a_body() -> None:
    found = problems(parts(), controls("start.next outer", "outer.body a", "a.success inner"))
    assert found == [("components[4]", "no connection carries its route `body`, so nothing is inside")]


def test_a_join_is_looked_at_within_its_scope() -> None:
    made = [*parts(), *inside("outer", script("d"), flows.component("join", "flow.join"))]
    again = controls(
        *SOUND[1:], "start.next outer", "outer.failure outer", "outer.body d", "a.success join", "d.success join"
    )
    found = check(parse(flows.document(made, again).encode()), REGISTRY)
    assert [problem for problem in found if problem.type is ProblemType.UNSOUND_JOIN] == []
    never = controls(*SOUND, "a.success join", "d.success join")
    found = check(parse(flows.document(made, never).encode()), REGISTRY)
    assert [(p.component_id, p.severity) for p in found if p.type is ProblemType.UNSOUND_JOIN] == [("join", Severity.ERROR)]


def test_a_policy_has_its_effect_on_a_scope_and_a_parent_is_in_both_forms() -> None:
    text = tried(policy={"timeout": "5s", "retry": {"maximum_attempts": 2}})
    assert check(parse(text.encode()), REGISTRY) == []
    assert parse(to_document(to_message(text)).encode()) == parse(text.encode())
