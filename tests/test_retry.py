"""Retries of a component: how they are written, what is wrong with them, and when there are none."""

from __future__ import annotations

import re
from typing import Any

import flows
import pytest
from blobhub.v1 import definition_pb2
from blobhub_server.workflow.components.contract import ComponentError
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import InvalidDefinition, Retry
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import Completion, ExecutionState, Interrupted, Started, todo
from blobhub_server.workflow.runtime.decision import Progress, happen
from blobhub_server.workflow.services.document import to_document, to_message
from google.protobuf.duration_pb2 import Duration
from interpreting import EXECUTION, REGISTRY, Run, compiled

WRITTEN = {
    "maximum_attempts": 3,
    "initial_interval": "2s",
    "backoff_coefficient": 1.5,
    "maximum_interval": "9s",
    "non_retryable_reasons": ["SCRIPT_ERROR", "INTERRUPTED"],
}
READ = Retry(
    maximum_attempts=3,
    initial_interval=2.0,
    backoff_coefficient=1.5,
    maximum_interval=9.0,
    non_retryable_reasons=("SCRIPT_ERROR", "INTERRUPTED"),
)


def document(retry: Any) -> str:
    return flows.code("set_data_output('result', 1)", policy={"retry": retry})


def read(text: str) -> Retry:
    (component,) = [item for item in parse(text.encode()).components if item.type == "logic.code"]
    return component.policy.retry


def camel_case(name: str) -> str:
    return re.sub("_(.)", lambda match: match[1].upper(), name)


def test_a_retry_is_read_under_its_names_in_either_case() -> None:
    assert read(document(WRITTEN)) == READ
    assert read(document({camel_case(name): value for name, value in WRITTEN.items()})) == READ


def test_a_retry_in_a_message_is_the_one_in_its_document() -> None:
    message = definition_pb2.WorkflowRetry(
        maximum_attempts=3,
        initial_interval=Duration(seconds=2),
        backoff_coefficient=1.5,
        maximum_interval=Duration(seconds=9),
        non_retryable_reasons=["SCRIPT_ERROR", "INTERRUPTED"],
    )
    (component,) = [item for item in to_message(document(WRITTEN)).components if item.type == "logic.code"]
    assert component.policy.retry == message
    assert read(to_document(to_message(document(WRITTEN)))) == READ


def test_a_retry_that_says_nothing_is_one_attempt() -> None:
    assert read(document({})) == Retry(maximum_attempts=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maximum_attempts", 0),
        ("maximum_attempts", 101),
        ("backoff_coefficient", 0.9),
        ("backoff_coefficient", 10.1),
    ],
)
def test_a_retry_out_of_range_is_a_problem_of_the_policy(name: str, value: float) -> None:
    problems = check(parse(document({"maximum_attempts": 2} | {name: value}).encode()), REGISTRY)
    found = [(problem.type, problem.path.rpartition(".policy.")[2]) for problem in problems]
    assert found == [("INVALID_POLICY", f"retry.{name}")]


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("maximum_attempts", 1.5, "maximum_attempts"),
        ("maximum_attempts", "3", "maximum_attempts"),
        ("initial_interval", 2, "initial_interval"),
        ("backoff_coefficient", "2", "backoff_coefficient"),
        ("maximum_interval", "-1s", "maximum_interval"),
        ("non_retryable_reasons", "SCRIPT_ERROR", "non_retryable_reasons"),
        ("non_retryable_reasons", ["SCRIPT_ERROR", 1], "non_retryable_reasons[1]"),
        ("non_retryable_reasons", [""], "non_retryable_reasons[0]"),
        ("non_retryable_reasons", ["A"] * 101, "non_retryable_reasons"),
    ],
)
def test_a_retry_of_another_shape_is_no_definition(name: str, value: Any, place: str) -> None:
    with pytest.raises(InvalidDefinition) as raised:
        parse(document({name: value}).encode())
    assert [problem.path.rpartition(".retry.")[2] for problem in raised.value.problems] == [place]


@pytest.mark.parametrize(("reason", "attempts"), [("SCRIPT_ERROR", 1), ("SCRIPT_TIMEOUT", 4)])
def test_a_failure_with_a_reason_that_is_not_retryable_is_not_tried_again(reason: str, attempts: int) -> None:
    retry = {"maximum_attempts": 4, "non_retryable_reasons": ["SCRIPT_ERROR"]}
    run = Run(compiled(document(retry))).start().finish(lambda _: ComponentError("no", reason=reason))
    assert run.types.count("processor.retrying") == attempts - 1
    assert run.types[-2:] == ["processor.error", "flow.error"]
    assert run.state.error["reason"] == reason


def test_an_interrupted_step_is_tried_again_unless_its_policy_forbids_it() -> None:
    for reasons, last in ([], "processor.retrying"), (["INTERRUPTED"], "flow.error"):
        run = Run(compiled(document({"non_retryable_reasons": reasons}))).start()
        (command,) = run.pending()
        run.tell(Interrupted(step=command.step))
        assert run.types[-1] == last


def test_only_failures_count_against_the_attempts_of_a_policy_and_each_attempt_has_a_higher_number() -> None:
    run = Run(compiled(document({"maximum_attempts": 2, "initial_interval": "1s", "backoff_coefficient": 10}))).start()
    waited = []
    for attempt, fails in enumerate([False, False, False, True, False, True], start=1):
        (command,) = run.pending()
        assert command.attempt == attempt
        if fails:
            run.tell(Completion(step=command.step, attempt=attempt, result=ComponentError("no")))
            waited += [record.public["until"] - run.now for record in run.records[-1:] if "until" in record.public]
            run.now += 1.0
        else:
            run.tell(Interrupted(step=command.step))
    assert run.types[-2:] == ["processor.error", "flow.error"]
    assert run.records[-2].public["attempt"] == 6
    assert waited == [1.0], "the wait is that of the first failure"


def test_a_turn_asks_for_what_is_new_and_the_state_for_all_that_is_open() -> None:
    names = [f"wait-{number}" for number in range(50)]
    text = flows.document(
        [flows.component("start", "flow.start"), *(flows.component(name, "flow.delay", seconds=5) for name in names)],
        [flows.control("start", name) for name in names],
    )
    graph = compiled(text)
    first = happen(graph, Progress(EXECUTION, ExecutionState(step_limit=1_000)), [Started({})], now=0.0, session={})
    assert len(first.commands) == len(todo(graph, first.progress.state, 0.0)) == 50
    assert first.progress.execution.state == "waiting"
    again = happen(graph, first.progress, [Completion(step=7, attempt=1)], now=5.0, session={})
    assert again.commands == []
    assert len(todo(graph, again.progress.state, 5.0)) == 49
