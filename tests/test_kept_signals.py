"""Signals that come before a step waits for them, and instants, in the interpreter."""

from __future__ import annotations

from collections import Counter
from typing import Any

import flows
import pytest
from blobhub_server.workflow.components.awaits import signal
from blobhub_server.workflow.components.contract import ComponentError
from blobhub_server.workflow.components.waiting import Delay, Wait
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import Completion, ExecutionState, Signalled, Started, StopRequested
from interpreting import REGISTRY, Run, compiled, replay
from scale import scaled
from signals import waits


def told(run: Run, *signals: tuple[str, str, Any], size: int = 10) -> list[str]:
    """Send signals, one after the other; the types of the records."""
    happenings = [Signalled(name=name, key=key, value=value, size_bytes=size) for name, key, value in signals]
    return [record.type for happening in happenings for record in run.tell(happening)]


def test_signals_that_come_early_are_taken_by_name_and_key_the_oldest_first() -> None:
    run = Run(compiled(waits(("other", ""), ("go", "a"), ("go", "b"), ("go", "a")))).start()
    early = [("go", "b", 1), ("go", "a", 2), ("go", "a", 3)]
    assert told(run, *early) == ["flow.signalled"] * 3
    assert (len(run.state.signals), run.state.signals.size_bytes) == (3, 30)
    told(run, ("other", "", 0))
    assert run.state.phase == "completed"
    assert run.state.result == [0, 2, 1, 3]
    assert (len(run.state.signals), run.state.signals.size_bytes, run.state.holdings.bytes) == (0, 0, 0)
    assert replay(run.graph, run.records) == run.state


def test_a_step_whose_signal_was_there_waits_and_goes_on_in_the_same_turn() -> None:
    run = Run(compiled(waits(("first", ""), ("go", "a")))).start()
    told(run, ("go", "a", 1))
    types = told(run, ("first", "", 0))
    assert types[:4] == ["processor.exited", "processor.entered", "processor.waiting", "processor.exited"]
    assert run.pending() == []


def test_what_is_kept_counts_as_memory_and_no_more_once_it_is_taken() -> None:
    run = Run(compiled(waits(("first", ""), ("go", "a")))).start()
    before = run.state.holdings.bytes
    told(run, ("go", "a", "x" * 100_000))
    assert run.state.holdings.bytes == before + 100_000
    assert replay(run.graph, run.records) == run.state
    told(run, ("first", "", 0))
    assert run.state.phase == "completed"


@pytest.mark.parametrize("count", [1, scaled(200, least=20)])
def test_the_state_is_that_of_its_records_whatever_came_before_and_in_whatever_turns(count: int) -> None:
    """All at once or one after the other."""
    graph = compiled(waits(*[("go", str(number % 3)) for number in range(count)]))
    early = [Signalled(name="go", key=str(number % 3), value=number, size_bytes=1) for number in reversed(range(count))]
    run = Run(graph).start()
    for happening in early:
        run.tell(happening)
    assert run.state.phase == "completed"
    assert replay(graph, run.records) == run.state
    for place in range(0, len(run.records), 7):
        assert len(replay(graph, run.records[:place]).signals) == sum(kept(run, place).values())


def kept(run: Run, place: int) -> Counter[str]:
    """How many signals of each key are kept before a record, without the state: an exit takes one where one is."""
    counts = Counter[str]()
    for record in run.records[:place]:
        if record.type == "flow.signalled":
            counts[record.public["key"]] += 1
        elif record.type == "processor.exited" and record.public["route"] == "received":
            key = str(int(str(record.component_id).removeprefix("wait-")) % 3)
            counts[key] -= counts[key] > 0
    return counts


def test_a_stopping_execution_keeps_no_signals() -> None:
    run = Run(compiled(waits(("go", "a")))).start()
    run.tell(StopRequested())
    assert told(run, ("other", "", 1)) == []


def test_a_signal_is_taken_by_the_first_of_the_steps_that_wait_for_it() -> None:
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            *(flows.component(id_, "flow.wait", name="go") for id_ in ("one", "two")),
            flows.component("end", "flow.end"),
        ],
        [
            *(flows.control("start", id_) for id_ in ("one", "two")),
            *(flows.control(id_, "end", "received") for id_ in ("one", "two")),
            flows.data("two", "value", "end", "value"),
        ],
    )
    run = Run(compiled(document)).start()
    told(run, ("go", "", 1))
    assert [step.component_id for step in run.state.open.values()] == ["two"]
    told(run, ("go", "", 2))
    assert run.state.result == 2


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"name": ""}, "`name` must be a text of 1 to 256 characters"),
        ({"name": 7}, "`name` must be a text"),
        ({"name": "x" * 257}, "`name` must be a text"),
        ({"name": "go", "key": "a\0b"}, "`key` must be a text of 0 to 256 characters, none of them a control character"),
        ({"name": "go", "key": 7}, "`key` must be a text"),
        ({"name": "go", "timeout": -1}, "`timeout` must be a number from 0 to a year"),
        ({"name": "go", "timeout": float("inf")}, "`timeout` must be a number"),
        ({"name": "go", "timeout": None}, "`timeout` must be a number"),
    ],
)
def test_a_wait_says_what_it_cannot_wait_for(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match="must be") as failed:
        Wait().run(inputs)
    assert failed.value.reason == "INVALID_INPUT"
    assert failed.value.message.startswith(message)
    assert [name for name, _ in Wait().problems(inputs)] == [message.split("`")[1]]


def test_a_wait_without_a_timeout_has_no_end() -> None:
    assert Wait().run({"name": "go"}) == signal("go", "")
    assert Wait().run({"name": {"type": "text", "text": "go"}, "key": "k", "timeout": 2}) == signal("go", "k", 2.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t01:00:00.5+01:00", 0.5),
        ("2027-03-28T02:30:00+01:00", 1806197400),
        ("9999-12-31T23:59:59Z", 253402300799),
        ("0001-01-01T00:00:00Z", -62135596800),
    ],
)
def test_an_instant_is_a_time_with_an_offset(text: str, seconds: float) -> None:
    assert Delay().run({"until": text}).until == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("2027-03-28", "2027-03-28T02:30:00", "2027-02-30T00:00:00Z", "20270328T023000Z", "2027-03-28T02:30:00+0100"),
        *("9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "2027-03-28T25:00:00Z", "soon", ""),
        *("２０２７-03-28T02:30:00Z", 7, None, "2027-03-28T02:30:00Z\n"),
    ],
)
def test_nothing_else_is_an_instant(text: Any) -> None:
    with pytest.raises(ComponentError) as failed:
        Delay().run({"until": text})
    assert failed.value.reason == "INVALID_INPUT"


@pytest.mark.parametrize(
    ("given", "reason"), [({}, "MISSING_INPUT"), ({"seconds": 1, "until": "1970-01-01T00:00:00Z"}, "INVALID_INPUT")]
)
def test_a_delay_waits_for_one_thing(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ComponentError) as failed:
        Delay().run(given)
    assert failed.value.reason == reason


def delayed(**values: Any) -> str:
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("wait", "flow.delay", **values),
            flows.component("end", "flow.end"),
        ],
        [flows.control("start", "wait"), flows.control("wait", "end")],
    )


def test_an_instant_that_is_to_come_is_waited_for_and_one_that_has_passed_is_not() -> None:
    graph = compiled(delayed(until="1970-01-01T00:01:00Z"))
    run = Run(graph).start()
    (wait,) = run.pending()
    assert wait.until == 60.0
    assert replay(graph, run.records) == run.state
    run.now = 60.0
    run.tell(Completion(step=wait.step, attempt=1))
    assert run.state.phase == "completed"
    late = Run(graph)
    late.now = 60.0
    late.tell(Started({}))
    assert late.state.phase == "completed"
    assert "processor.waiting" not in late.types


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ({}, "MISSING_PORT"),
        ({"until": "tomorrow"}, "TYPE_MISMATCH"),
        ({"seconds": 1, "until": "2027-03-28T02:30:00Z"}, "TYPE_MISMATCH"),
    ],
)
def test_check_says_what_a_delay_lacks_or_has_too_much(values: dict[str, Any], type_: str) -> None:
    (problem,) = check(parse(delayed(**values).encode()), REGISTRY)
    assert (problem.type.name, problem.component_id) == (type_, "wait")


def test_a_timeout_that_leads_nowhere_is_warned_of_only_where_there_is_one() -> None:
    def problems(**values: Any) -> list[str]:
        parts = [flows.component("start", "flow.start"), flows.component("wait", "flow.wait", name="go", **values)]
        connections = [flows.control("start", "wait"), flows.control("wait", "end", "received")]
        document = flows.document([*parts, flows.component("end", "flow.end")], connections)
        return [problem.type.name for problem in check(parse(document.encode()), REGISTRY)]

    assert problems() == []
    assert problems(timeout=5) == ["ROUTE_LEADS_NOWHERE"]


def test_an_empty_state_keeps_nothing() -> None:
    assert len(ExecutionState(step_limit=1).signals) == 0
