"""Joins: what they take, leave, swallow and wait for, one rule at a time."""

from __future__ import annotations

import flows
import pytest
import runs
from blobhub.v1 import execution_pb2
from blobhub_client import get_value
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import Completion
from interpreting import REGISTRY, Run, replay
from runs import failing
from served import Api

pytestmark = pytest.mark.either_database


def run(components: dict[str, str], *connections: str, step_limit: int = 1_000) -> Run:
    """Start a definition whose components are scripts, joins (`all`, `first`) or ends, and which begins with `start`.

    A connection is written `source.route target`.
    """
    made = {
        "script": lambda name: flows.component(name, "logic.code", code="pass"),
        "all": lambda name: flows.component(name, "flow.join", mode="all"),
        "first": lambda name: flows.component(name, "flow.join", mode="first"),
        "end": lambda name: flows.component(name, "flow.end"),
    }
    parts = [flows.component("start", "flow.start"), *(made[kind](name) for name, kind in components.items())]
    ends = [(source.partition("."), target) for source, target in map(str.split, connections)]
    document = flows.document(parts, [flows.control(source, target, route) for (source, _, route), target in ends])
    return Run(Graph.compile(parse(document.encode()), REGISTRY), step_limit=step_limit).start()


def end(run: Run, component_id: str, route: str = "success", error: ComponentError | None = None) -> None:
    """End the oldest open step of a component."""
    step = next(number for number, step in run.state.open.items() if step.component_id == component_id)
    run.tell(Completion(step=step, attempt=1, result=error or Outcome(route=route)))
    assert replay(run.graph, run.records, step_limit=run.state.step_limit) == run.state


def entered(run: Run, component_id: str) -> int:
    return sum(record.type == "processor.entered" and record.component_id == component_id for record in run.records)


LOOP = {"fork": "script", "a": "script", "b": "script", "join": "first", "again": "script"}
LOOPED = ("start.next fork", "fork.success a", "fork.success b", "a.success join", "b.success join", "join.next again")


def test_a_first_join_in_a_loop_fires_in_every_round() -> None:
    made = run(LOOP, *LOOPED, "again.other fork")
    for round_ in range(1, 5):
        end(made, "fork")
        end(made, "b")
        assert entered(made, "join") == round_
        end(made, "again", "other")
    end(made, "fork")
    for _ in range(5):
        end(made, "a")
    assert entered(made, "join") == 5, "the four of earlier rounds were late"
    end(made, "b")
    end(made, "again")
    assert made.state.phase == "completed"


def test_a_late_token_is_swallowed_in_whatever_round_it_comes() -> None:
    made = run(LOOP, *LOOPED, "again.other fork")
    end(made, "fork")
    end(made, "b")
    end(made, "again", "other")
    end(made, "fork")
    end(made, "a")
    assert entered(made, "join") == 1, "the older `a` is of the first round"
    end(made, "a")
    assert entered(made, "join") == 2
    end(made, "again")
    assert made.state.status == "running", "the `b` of the second round is still open"
    end(made, "b")
    assert made.state.phase == "completed"
    assert entered(made, "join") == 2


def test_what_comes_of_a_late_token_is_late_however_many_there_are() -> None:
    parts = LOOP | {"c": "script", "d": "script"}
    made = run(parts, *LOOPED, "b.other c", "b.other d", "c.success join", "d.success join")
    end(made, "fork")
    end(made, "a")
    end(made, "b", "other")
    end(made, "c")
    end(made, "d")
    assert entered(made, "join") == 1


def test_an_error_of_a_late_token_fails_the_execution() -> None:
    made = run(LOOP, *LOOPED)
    end(made, "fork")
    end(made, "a")
    end(made, "b", error=ComponentError("broken", reason="BROKEN"))
    assert made.state.error["reason"] == "BROKEN"


def test_two_connections_of_one_route_into_a_first_join_fire_it_once() -> None:
    made = run({"join": "first", "it": "script"}, "start.next join", "start.next join", "join.next it")
    assert entered(made, "join") == 1
    end(made, "it")
    assert made.state.phase == "completed"


def test_all_tokens_of_a_route_are_placed_before_any_join_looks_at_them() -> None:
    made = run({"join": "first", "a": "script"}, "start.next join", "start.next a", "a.success join")
    end(made, "a")
    assert entered(made, "join") == 1, "`a` had its token when the join fired, though its connection stands behind"


def test_where_tokens_merge_a_mark_stays_only_if_all_of_them_carry_it() -> None:
    parts = {"a": "script", "b": "script", "c": "script", "join": "first", "both": "all", "all": "script"}
    late = run(
        parts,
        *("start.next a", "start.next b", "start.next c", "a.success join"),
        *("b.success both", "c.success both", "both.next all", "all.success join"),
    )
    end(late, "a")
    for name in ("b", "c", "all"):
        end(late, name)
    assert entered(late, "join") == 1, "both were late"
    mixed = run(
        parts,
        *("start.next a", "start.next b", "a.success join", "join.next c"),
        *("b.success both", "c.success both", "both.next all", "all.success join"),
    )
    end(mixed, "a")
    for name in ("b", "c"):
        end(mixed, name)
    end(mixed, "all")
    assert entered(mixed, "join") == 2, "one of the two came from the join itself"


def test_an_all_join_leaves_later_tokens_for_its_next_round() -> None:
    made = run(
        {"a": "script", "b": "script", "join": "all", "it": "script"},
        *("start.next a", "start.next b", "a.other a", "a.other join", "b.other b", "b.other join", "join.next it"),
    )
    for name, rounds in (("a", 0), ("a", 0), ("b", 1), ("b", 2), ("b", 2), ("a", 3)):
        end(made, name, "other")
        assert entered(made, "join") == rounds
    for name in ("a", "b", "it", "it", "it"):
        end(made, name)
    assert made.state.phase == "completed"


def test_a_join_that_starves_names_what_it_lacks_and_what_is_left_over() -> None:
    made = run(
        {"a": "script", "b": "script", "join": "all", "handled": "end"},
        *("start.next a", "start.next a", "start.next b", "a.success join", "b.success join", "b.failure handled"),
    )
    end(made, "a")
    end(made, "a")
    end(made, "b", "failure")
    assert made.state.error["reason"] == "JOIN_STARVED"
    message = "join 'join' lacks tokens of: b-success-join; left over are tokens of: a-success-join (2)"
    assert made.state.error["message"] == message


def test_an_execution_has_a_limited_number_of_tokens() -> None:
    twice = [f"it.success {name}" for name in ("it", *(f"wait-{number}" for number in range(99)))]
    made = run(
        {"it": "script"} | {f"wait-{number}": "script" for number in range(99)}, "start.next it", *twice, step_limit=100_000
    )
    while not made.state.ended:
        end(made, "it")
    assert made.state.error["reason"] == "TOKEN_LIMIT"
    assert entered(made, "it") == 102


async def run_file(api: Api, name: str) -> execution_pb2.Execution:
    session = await api.session(failing(name))
    return await runs.run(api, session)


async def test_the_first_join_in_a_loop_that_lost_work_runs_all_six_rounds(api: Api) -> None:
    execution = await run_file(api, "join-first-in-a-loop-ends-as-completed.json")
    assert execution.state == execution_pb2.EXECUTION_STATE_COMPLETED
    assert get_value(execution, "result") == 6


async def test_the_all_join_that_keeps_tokens_of_a_round_that_was_given_up_names_them(api: Api) -> None:
    execution = await run_file(api, "join-all-in-a-loop-keeps-old-tokens.json")
    assert execution.failure.reason == "JOIN_STARVED"
    assert execution.failure.message == (
        "join 'all' lacks tokens of: id2-success-all; left over are tokens of: id0-success-all, id1-success-all, "
        "id3-success-all"
    )
