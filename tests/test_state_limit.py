"""What an execution's state may take in memory: values that open steps, outputs and the execution's values hold."""

from __future__ import annotations

import json
from typing import Any

import flows
import pytest
from blobhub.v1 import execution_pb2
from blobhub_server.workflow.components.contract import Outcome
from blobhub_server.workflow.interpreter import Completion
from blobhub_server.workflow.interpreter.holdings import MAX_STATE_BYTES
from blobhub_server.workflow.interpreter.size import MAX_LOG_BYTES
from calling import ask
from interpreting import Run, compiled, replay
from served import Api
from waiting import within_deadline

MEBIBYTE = 1 << 20


def hoard(*, operation: str = "set", expression: str = "n[1:] + n[:1]", begin: Any = None) -> str:
    """Rounds without an end, each of which changes `n` and leaves a script waiting that was given `n` as it is then."""
    begin = [0] * 2_000 if begin is None else begin
    kept = flows.value("n", "n", persistence="execution", value=begin)
    kept["ports"].append(flows.port("data_input", "operation", operation))
    return flows.document(
        [
            flows.component("start", "flow.start"),
            kept,
            flows.component("step", "logic.expression", expression=expression),
            flows.component("keep", "logic.code", code="while True:\n    pass"),
            flows.component("late", "flow.end"),
        ],
        [
            flows.control("start", "step"),
            flows.data("n", "value", "step", "n"),
            flows.data("step", "result", "n", "value"),
            flows.control("step", "keep", "success"),
            flows.control("step", "step", "success"),
            flows.control("keep", "late", "failure"),
            flows.data("n", "value", "keep", "n"),
        ],
    )


def fan(count: int) -> str:
    """A text, given to many delays that wait side by side."""
    names = [f"wait-{number}" for number in range(count)]
    scripts = [flows.component(name, "logic.code", code="pass") for name in names]
    return flows.document(
        [flows.component("start", "flow.start"), flows.value("text", "text", persistence="execution", value=""), *scripts],
        [
            *(flows.control("start", name) for name in names),
            *(flows.data("text", "value", name, "text") for name in names),
        ],
    )


@pytest.mark.parametrize(
    "document",
    [hoard(), hoard(operation="append", expression="1"), hoard(begin="é" * 50_000)],
    ids=["lists", "a list that grows", "texts"],
)
def test_an_execution_whose_waiting_steps_hold_too_much_fails_before_its_log_is_full(document: str) -> None:
    run = Run(compiled(document), step_limit=1_000_000).start()
    assert run.state.error is not None
    assert run.state.error["reason"] == "STATE_LIMIT"
    assert run.state.logged < MAX_LOG_BYTES


def test_a_text_that_thousands_of_steps_are_given_counts_once() -> None:
    run = Run(compiled(fan(1_500))).start(text="x" * MEBIBYTE)
    assert run.state.status == "running"
    assert MEBIBYTE < run.state.holdings.bytes < 3 * MEBIBYTE
    run.finish()
    assert run.types[-1] == "flow.exited"


def test_what_nobody_holds_any_more_is_not_counted() -> None:
    run = Run(compiled(flows.rounds(300, expression="n[1:] + n[0]", until="False", begin="x" * 50_000)), step_limit=900)
    run.start()
    assert run.state.error is not None
    assert run.state.error["reason"] == "STEP_LIMIT"


def test_a_replayed_log_counts_the_same() -> None:
    run = Run(compiled(hoard()), step_limit=300)
    run.start()
    for records in (run.records[:100], run.records[:-1]):
        state = replay(run.graph, [type(record).from_json(json.loads(json.dumps(record.to_json()))) for record in records])
        again = replay(run.graph, records)
        assert state == again
        assert 0 < state.holdings.bytes < MAX_STATE_BYTES
    ending = Run(run.graph)
    ending.state = state
    ending.tell(Completion(step=next(iter(state.open)), attempt=1, result=Outcome(route="success")))
    assert ending.state.holdings.bytes < state.holdings.bytes


async def test_a_running_execution_that_holds_too_much_ends_with_a_named_reason(api: Api) -> None:
    session = await api.session(hoard())
    spec = {"definition": "workflow", "step_limit": 100_000}
    ended = await within_deadline(ask(api, "RunExecution", session=session, spec=spec))
    assert ended.execution.state == execution_pb2.EXECUTION_STATE_FAILED
    assert ended.execution.failure.reason == "STATE_LIMIT"
