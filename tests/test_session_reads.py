"""Turns read no more of session objects than their next steps need, and a step that needs too much fails by name."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import counters
import flows
import pytest
from blobhub.v1 import execution_pb2
from blobhub_server.workflow.components.contract import Outcome
from blobhub_server.workflow.interpreter import (
    MAX_STEP_BYTES,
    Completion,
    Continue,
    ExecutionState,
    Started,
    Turn,
    Unread,
    advance,
    needs,
)
from blobhub_server.workflow.rules.session_object import Reading
from blobhub_server.workflow.runtime.embedded import object_reader
from blobhub_server.workflow.runtime.embedded.object_reader import MAX_TURN_BYTES, ObjectReader
from interpreting import compiled
from runs import run
from served import Api

pytestmark = pytest.mark.either_database

OBJECTS, LARGE = 10, 950_000
"""Together they are more than a turn has read for it."""
FITTING = MAX_STEP_BYTES // LARGE


def reading(steps: list[list[str]]) -> str:
    """Steps one after the other, each given the lengths of some objects; the last gives the result."""
    names = [f"step-{number}" for number in range(len(steps))]
    aliases = sorted({alias for step in steps for alias in step})
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [counters.session_value(alias) for alias in aliases]
    parts += [
        flows.component(name, "logic.expression", expression=" + ".join(f"len({alias})" for alias in step))
        for name, step in zip(names, steps, strict=True)
    ]
    joined = [flows.control("start", names[0]), flows.control(names[-1], "end", "success")]
    joined += [flows.control(first, then, "success") for first, then in pairwise(names)]
    joined += [flows.data(alias, "value", name, alias) for name, step in zip(names, steps, strict=True) for alias in step]
    joined.append(flows.data(names[-1], "result", "end", "value"))
    return flows.document(parts, joined)


async def put_large(api: Api, session_id: str, count: int) -> list[str]:
    aliases = [f"large_{number}" for number in range(count)]
    for number, alias in enumerate(aliases):
        await counters.put(api, session_id, "x" * (LARGE + number), alias)
    return aliases


@pytest.mark.both_databases
async def test_an_execution_reads_many_large_objects_and_never_more_than_a_turn_may_have(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, lengths = ObjectReader.read, list[int]()

    async def note(*arguments: Any, **named: Any) -> Reading:
        found = await read(*arguments, **named)
        lengths.append(sum(len(value) for value in found.values.values() if isinstance(value, str)))
        return found

    monkeypatch.setattr(ObjectReader, "read", note)
    aliases = [f"large_{number}" for number in range(OBJECTS)]
    session_id = await api.session(reading([[alias] for alias in aliases]))
    await put_large(api, session_id, OBJECTS)
    ended = await run(api, session_id)
    assert (ended.state, ended.result.number_value) == (execution_pb2.EXECUTION_STATE_COMPLETED, LARGE + OBJECTS - 1)
    assert LARGE <= max(lengths) <= MAX_TURN_BYTES < OBJECTS * LARGE


@pytest.mark.parametrize(("count", "reason"), [(FITTING, ""), (FITTING + 1, "SESSION_READ_LIMIT")])
async def test_a_step_that_reads_more_than_it_may_fails(api: Api, count: int, reason: str) -> None:
    aliases = [f"large_{number}" for number in range(count)]
    session_id = await api.session(reading([["large_0"], aliases]))
    await put_large(api, session_id, count)
    ended = await run(api, session_id)
    assert ended.failure.reason == reason
    assert ("'large_0', 'large_1'" in ended.failure.message) == bool(reason)


async def test_a_script_that_reads_more_than_it_may_fails_though_it_has_begun(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ObjectReader, "reading", _grown(ObjectReader.reading))
    session_id = await api.session(counters.script(value=0))
    await counters.put(api, session_id, 1)
    ended = await run(api, session_id)
    assert ended.failure.reason == "SESSION_READ_LIMIT"


def _grown(original: Any) -> Any:
    """Reading that has those who run a step, and name what they need themselves, find more than may be read."""

    def reading(reader: ObjectReader, run: Any, execution: Any, aliases: Any, needed: Any) -> Any:
        if list(needed) != [aliases]:
            return original(reader, run, execution, aliases, needed)
        return _Given(Reading(values={alias: Unread() for alias in aliases}))

    return reading


class _Given:
    def __init__(self, found: Reading) -> None:
        self._found = found

    async def __aenter__(self) -> Reading:
        return self._found

    async def __aexit__(self, *_: object) -> None:
        pass


def turn(graph: Any, state: ExecutionState, *happenings: Any, **session: Any) -> Turn:
    return advance(graph, state, happenings, now=0.0, session=session)


def test_a_turn_ends_before_a_step_whose_objects_were_not_read_and_the_next_begins_with_it() -> None:
    graph = compiled(reading([["small"], ["large"]]))
    first = turn(graph, ExecutionState(step_limit=10), Started({}), small="ab", large=Unread())
    assert first.state.runnable
    assert first.state.error is None
    assert needs(graph, first.state, [Continue()]) == [{"large"}]
    second = turn(graph, first.state, Continue(), small="ab", large="abc")
    assert (second.state.phase, second.state.result) == ("completed", 3)
    beyond = turn(graph, first.state, Continue(), small="ab", large=Unread())
    assert (beyond.state.error or {})["reason"] == "SESSION_READ_LIMIT"
    assert "large" in beyond.reads, "where the object is another by the commit, the step is entered again"


def test_an_end_that_changes_an_object_which_was_not_read_is_left_for_the_next_turn() -> None:
    sides = ["left", "right"]
    parts = [flows.component("start", "flow.start"), *(counters.session_value(side, operation="append") for side in sides)]
    parts += [flows.component(f"make-{side}", "logic.code", code="pass") for side in sides]
    joined = [flows.control("start", f"make-{side}") for side in sides]
    joined += [flows.data(f"make-{side}", "result", side, "value") for side in sides]
    graph = compiled(flows.document(parts, joined))
    begun = turn(graph, ExecutionState(step_limit=10), Started({}), left=[], right=[])
    ends = [
        Completion(step=step, attempt=1, result=Outcome(route="success", outputs={"result": step}))
        for step in begun.state.open
    ]
    assert len(ends) == len(sides)
    assert needs(graph, begun.state, ends) == [{"left"}, {"right"}]
    first = turn(graph, begun.state, *ends, left=[1], right=Unread())
    assert (first.taken, len(first.written["left"])) == (1, 2)
    second = turn(graph, first.state, *ends[1:], left=Unread(), right=[1])
    assert (second.taken, len(second.written["right"])) == (1, 2)
    assert second.state.phase == "completed"
    beyond = turn(graph, first.state, *ends[1:], left=Unread(), right=Unread())
    assert (beyond.state.error or {})["reason"] == "SESSION_READ_LIMIT"


def test_what_is_needed_is_read_first_and_what_is_small_beside_it() -> None:
    half = MAX_STEP_BYTES // 2
    sizes = {"a": half, "b": half, "c": half, "d": half, "e": 10}
    choose = object_reader._choose
    assert set(choose(sizes, [])) == {"a", "e"}
    assert set(choose(sizes, [{"d"}])) == {"d", "e"}
    assert set(choose(sizes, [{"c", "d"}, {"a", "b"}])) == {"a", "b", "c", "d"}
    assert set(choose(sizes, [{"a", "b", "e"}, {"c"}])) == {"c", "e"}, "the first is more than a step may read"
    assert set(choose({"a": half, "e": 10}, [])) == {"a", "e"}
    assert set(choose(sizes, [{"gone"}])) == {"a", "e"}
