"""Errors as data: the output `error` of what fails, errors that a definition raises, and which of them are tried again."""

from __future__ import annotations

from typing import Any

import flows
import pytest
from blobhub.v1 import event_pb2, session_pb2
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import Completion, RunStep
from calling import ask
from google.protobuf import json_format
from interpreting import REGISTRY, Run, compiled, replay
from served import Api

pytestmark = pytest.mark.either_database


def handled(*, policy: Any = None, into: dict[str, Any] | None = None) -> str:
    """A script whose failure leads to the end, whose result is the error; it is written into a value where there is one."""
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [flows.component("work", "logic.code", code="set_data_output('n', 1)", policy=policy)]
    connections = [
        flows.control("start", "work"),
        flows.control("work", "end", "success"),
        flows.control("work", "end", "failure"),
        flows.data("work", "error", "end", "value"),
    ]
    if into is not None:
        parts.append(into)
        connections.append(flows.data("work", "error", into["id"], "value"))
    return flows.document(parts, connections)


def failed(run: Run, error: ComponentError) -> Run:
    return run.start().finish(lambda _: error)


def raised(reason: str = "COMPONENT_ERROR", message: str = "", **others: Any) -> dict[str, Any]:
    return {"reason": reason, "message": message, "line": 0, "attempt": 1, "details": None} | others


def test_on_its_failure_route_a_component_has_the_output_error() -> None:
    error = ComponentError("declined", reason="CARD_DECLINED", line=3, details={"code": 51})
    run = failed(Run(compiled(handled())), error)
    told = raised("CARD_DECLINED", "declined", component_id="work", line=3, details={"code": 51})
    assert run.types[-1] == "flow.exited"
    assert run.state.result == told
    assert replay(run.graph, run.records) == run.state


def test_the_error_is_that_of_the_last_attempt() -> None:
    retry = {"maximum_attempts": 3, "initial_interval": "0s"}
    run = failed(Run(compiled(handled(policy={"retry": retry}))), ComponentError("no"))
    assert run.state.result["attempt"] == 3


def test_a_script_that_chooses_the_failure_route_has_an_error_too_and_may_give_its_own() -> None:
    run = Run(compiled(handled())).start().finish(lambda _: Outcome(route="failure"))
    assert run.state.result == raised(message="it ended with the route `failure`", component_id="work")
    run = Run(compiled(handled())).start().finish(lambda _: Outcome(route="failure", outputs={"error": "mine"}))
    assert run.state.result == "mine"


def test_an_error_may_be_written_into_values_of_the_execution_and_the_session() -> None:
    last = flows.value("last", "last", persistence="session")
    run = failed(Run(compiled(handled(into=last))), ComponentError("no", reason="LOST"))
    assert run.written["last"]["reason"] == "LOST"
    errors = flows.component("errors", "data.value", alias="errors", persistence="execution", operation="append")
    run = failed(Run(compiled(handled(into=errors))), ComponentError("no", reason="LOST"))
    assert [error["reason"] for error in run.state.values["errors"]] == ["LOST"]
    assert replay(run.graph, run.records) == run.state


def test_an_error_that_cannot_be_written_fails_the_execution() -> None:
    sums = flows.component("sum", "data.value", alias="sum", persistence="execution", operation="add")
    run = failed(Run(compiled(handled(into=sums))), ComponentError("no", reason="LOST"))
    assert (run.types[-1], run.state.error["reason"]) == ("flow.error", "OPERATION_TYPE")


@pytest.mark.parametrize("details", [object(), "x" * (16 << 10), [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], float("nan")])
def test_details_that_are_no_json_or_too_large_are_left_out(details: Any) -> None:
    run = failed(Run(compiled(handled())), ComponentError("no", details=details))
    assert run.state.result["details"] is None


def test_an_error_that_nobody_handles_fails_the_execution_and_names_its_component() -> None:
    text = flows.document(
        [flows.component("start", "flow.start"), flows.component("work", "logic.code", code="pass")],
        [flows.control("start", "work")],
    )
    run = failed(Run(compiled(text)), ComponentError("no", reason="LOST", details=[1]))
    assert run.state.error == raised("LOST", "component 'work' failed: no", component_id="work", details=[1])


def failing(**values: Any) -> str:
    """A script whose error is raised again by `flow.fail`."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("work", "logic.code", code="pass"),
            flows.component("fail", "flow.fail", **values),
        ],
        [
            flows.control("start", "work"),
            flows.control("work", "fail", "failure"),
            flows.data("work", "error", "fail", "error"),
        ],
    )


def test_an_error_is_raised_again_with_what_it_says_unless_told_otherwise() -> None:
    error = ComponentError("declined", reason="CARD_DECLINED", details={"code": 51})
    run = failed(Run(compiled(failing())), error)
    told = raised("CARD_DECLINED", "component 'fail' failed: declined", component_id="fail", details={"code": 51})
    assert run.state.error == told
    run = failed(Run(compiled(failing(reason="PAYMENT", message="no money"))), error)
    assert run.state.error == told | {"reason": "PAYMENT", "message": "component 'fail' failed: no money"}


@pytest.mark.parametrize("reason", ["", "R" * 65, {"type": "text", "text": ""}])
def test_a_reason_that_is_none_is_an_error_of_the_definition(reason: Any) -> None:
    problems = check(parse(failing(reason=reason).encode()), REGISTRY)
    assert [problem.type for problem in problems if problem.severity == "ERROR"] == ["TYPE_MISMATCH"]


def test_an_output_error_whose_failure_leads_nowhere_is_warned_of() -> None:
    text = flows.document(
        [flows.component("start", "flow.start"), flows.component("a", "logic.expression", expression="1"),
         flows.component("end", "flow.end")],
        [flows.control("start", "a"), flows.control("a", "end", "success"), flows.data("a", "error", "end", "value")],
    )  # fmt: skip
    problems = check(parse(text.encode()), REGISTRY)
    assert [(problem.type, problem.severity) for problem in problems] == [("UNSET_OUTPUT", "WARNING")]
    assert check(parse(handled().encode()), REGISTRY) == []


@pytest.mark.parametrize(
    ("reasons", "attempts"),
    [
        ({"retryable_reasons": ["LOST"]}, 3),
        ({"retryable_reasons": ["TIMEOUT"]}, 1),
        ({"retryable_reasons": ["LOST"], "non_retryable_reasons": ["LOST"]}, 1),
    ],
)
def test_a_retry_may_be_limited_to_reasons(reasons: dict[str, Any], attempts: int) -> None:
    retry = {"maximum_attempts": 3, "initial_interval": "0s", **reasons}
    run = failed(Run(compiled(handled(policy={"retry": retry}))), ComponentError("no", reason="LOST"))
    assert run.types.count("processor.retrying") == attempts - 1


def test_a_component_knows_whose_failure_has_led_to_it() -> None:
    text = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("a", "logic.code", code="pass"),
            flows.component("b", "logic.code", code="pass"),
            flows.component("join", "flow.join"),
            flows.component("c", "logic.code", code="pass"),
        ],
        [
            flows.control("start", "a"),
            flows.control("a", "b", "failure"),
            flows.control("start", "join"),
            flows.control("b", "join", "success"),
            flows.control("join", "c"),
        ],
    )
    run = Run(compiled(text)).start()
    origins = {}
    for result in (ComponentError("no"), Outcome(route="success"), Outcome(route="success")):
        (command,) = [command for command in run.pending() if isinstance(command, RunStep)]
        origins[command.component_id] = run.state.open[command.step].origin
        run.tell(Completion(step=command.step, attempt=1, result=result))
    assert origins == {"a": "", "b": "a", "c": "a"}


async def test_watchers_and_callers_are_told_the_component_and_the_details(api: Api) -> None:
    details = {"code": 51, "large": 2**63}
    text = flows.document(
        [flows.component("start", "flow.start"), flows.component("fail", "flow.fail", reason="NO", details=details)],
        [flows.control("start", "fail")],
    )
    session = await api.session(text)
    execution = (await ask(api, "RunExecution", session=session, spec={"definition": "workflow"})).execution
    request = session_pb2.WatchSessionRequest(session=session, replay_only=True)
    events = [event async for message in api.sessions.WatchSession(request) for event in message.events]
    (error,) = [event.processor_error for event in events if event.WhichOneof("payload") == "processor_error"]
    for failure in (execution.failure, error.failure):
        assert isinstance(failure, event_pb2.Failure)
        assert (failure.reason, failure.component_id) == ("NO", "fail")
        assert failure.details_json == '{"code":51,"large":9223372036854775808}'
        assert json_format.MessageToDict(failure.details)["code"] == 51
