"""Every type of problem, each shown by the documents that have it: how bad it is, at which component, where."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import flows
import grpc
import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2, revision_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.workflow.definitions import check
from blobhub_server.workflow.definitions.document import ProblemType
from calling import ask
from google.rpc import error_details_pb2
from served import Api, connected, served

pytestmark = pytest.mark.either_database

START, END = flows.component("start", "flow.start"), flows.component("end", "flow.end")
THROUGH = flows.control("start", "end")
SCRIPT = "set_data_output('result', 1)"
SECONDS = flows.port("data_input", "seconds", 1)


@dataclass(frozen=True)
class Shown:
    """What one document shows: its only problem, or the errors that hide others."""

    type: str
    path: str
    document: str
    component: str = ""
    line: int = 0
    column: int = 0
    severity: str = "ERROR"


def between(*parts: dict[str, Any], routes: tuple[str, ...] = ("success",), more: tuple[dict[str, Any], ...] = ()) -> str:
    """A document of start, a first part that is given control, and end, which its routes lead to."""
    name = parts[0]["id"]
    onward = [flows.control(name, "end", route) for route in routes]
    return flows.document([START, END, *parts], [flows.control("start", name), *onward, *more])


def raw(**fields: Any) -> str:
    """The smallest document that can be run, with more or other fields."""
    return json.dumps(json.loads(flows.document([START], [])) | fields)


def code(source: str, *, routes: tuple[str, ...] = ("success",), **more: Any) -> str:
    return between(flows.component("script", "logic.code", code=source, **more), routes=routes)


def switch(*cases: dict[str, str], routes: tuple[str, ...]) -> str:
    return between(flows.component("which", "flow.switch", cases=list(cases), n=1), routes=routes)


def sum_of(expression: str, **more: Any) -> str:
    return between(flows.component("sum", "logic.expression", expression=expression, **more))


def shared(alias: Any) -> str:
    """A script that reads a session object."""
    kept = flows.value("kept", alias, persistence="session")
    script = flows.component("script", "logic.code", code=SCRIPT)
    return between(script, kept, more=(flows.data("kept", "value", "script", "kept"),))


def of_data(*ends: str) -> str:
    """A script, and a connection of data."""
    return between(flows.component("script", "logic.code", code=SCRIPT), more=(flows.data(*ends),))


POLICY = {"timeout": "5s"}
FIRST, SECOND = flows.data("script", "result", "end", "value"), flows.data("other", "result", "end", "value")
TWO = (flows.component("script", "logic.code", code=SCRIPT), flows.component("other", "logic.code", code=SCRIPT))
WRITTEN = flows.data("x", "result", "kept", "value")
WARNING = "WARNING"


def error(type_: str, path: str, document: str, component: str = "", line: int = 0, column: int = 0) -> Shown:
    return Shown(type=type_, path=path, document=document, component=component, line=line, column=column)


def warning(type_: str, path: str, document: str, component: str = "", line: int = 0, column: int = 0) -> Shown:
    return replace(error(type_, path, document, component, line, column), severity=WARNING)


TABLE = [
    error("INVALID_DOCUMENT", "type", raw(type="workflow")),
    error("INVALID_DOCUMENT", "", "[1", line=1, column=3),
    error("INVALID_DOCUMENT", "", '{"type":\n "workflow_definition",,}', line=2, column=24),
    error("INVALID_DOCUMENT", "", "[]"),
    error("INVALID_DOCUMENT", "components[0].position.x", raw(components=[START | {"position": {"x": "1"}}]), "start"),
    error("INVALID_DOCUMENT", "components[0].name", raw(components=[START | {"name": "a\u0000b"}]), "start"),
    warning("UNKNOWN_VERSION", "version", raw(version="9")),
    warning(
        "REPEATED_CONNECTION", "connections[1]", flows.document([START, END], [THROUGH, THROUGH | {"id": "again"}]), "start"
    ),
    warning(
        "REPEATED_CONNECTION",
        "connections[4]",
        between(
            flows.component("x", "logic.expression", expression="1"),
            flows.value("kept", "kept", persistence="execution"),
            more=(WRITTEN, flows.data("kept", "value", "end", "value"), WRITTEN | {"id": "again"}),
        ),
        "x",
    ),
    error("UNKNOWN_COMPONENT_TYPE", "components[2].type", between(flows.component("x", "no.such")), "x"),
    error("DUPLICATE_ID", "components", flows.document([START, END, END], [THROUGH]), "end"),
    error("DUPLICATE_ID", "connections", flows.document([START, END], [THROUGH, THROUGH])),
    error("MISSING_PORT", "components[2].ports", between(flows.component("x", "logic.code")), "x"),
    error("DANGLING_CONNECTION", "connections[0].target_id", flows.document([START], [THROUGH])),
    error(
        "UNKNOWN_PORT", "connections[0].route", flows.document([START, END], [flows.control("start", "end", "on")]), "start"
    ),
    error("UNKNOWN_PORT", "components[0].ports[0]", raw(components=[flows.component("start", "flow.start", x=1)]), "start"),
    error(
        "UNKNOWN_PORT",
        "connections[1].target_port",
        code(SCRIPT).replace('"flow_input", "route": "s', '"x", "route": "s'),
        "end",
    ),
    error("UNKNOWN_PORT", "connections[2].target_port", of_data("script", "result", "end", "flow_input"), "end"),
    error("UNKNOWN_PORT", "connections[2].target_port", of_data("script", "result", "end", "data_output"), "end"),
    error("UNKNOWN_PORT", "connections[2].source_port", of_data("script", "flow_input", "end", "value"), "script"),
    error("UNKNOWN_PORT", "connections[2].source_port", of_data("start", "x", "end", "value"), "start"),
    error("UNKNOWN_PORT", "connections[2].target_port", of_data("script", "result", "script", "language"), "script"),
    warning(
        "UNREACHABLE_COMPONENT",
        "components[1]",
        flows.document([START, END], []),
        "end",
    ),
    error(
        "TYPE_MISMATCH",
        "components[2].ports[0].value",
        between(flows.component("x", "flow.delay", seconds="1"), routes=("next",)),
        "x",
    ),
    error("TYPE_MISMATCH", "components[3].ports[0].value", shared("a//b"), "kept"),
    error("TYPE_MISMATCH", "components[3].ports[0].value", shared("../b"), "kept"),
    warning(
        "TYPE_MISMATCH",
        "components[2].ports[0].value[0].when",
        switch({"route": "a", "when": "1"}, routes=("a", "default")),
        "which",
    ),
    error("NO_START", "components", flows.document([], [])),
    error("SEVERAL_STARTS", "components", flows.document([START, flows.component("two", "flow.start")], []), "two"),
    error("INVALID_EXPRESSION", "components[2].ports[0].value", sum_of("1 +\n )"), "sum", 2, 2),
    error("UNKNOWN_NAME", "components[2].ports[0].value", sum_of("1 + n"), "sum", 1, 5),
    error(
        "INVALID_POLICY",
        "components[2].policy.retry.maximum_attempts",
        code(SCRIPT, policy={"retry": {"maximum_attempts": 101}}),
        "script",
    ),
    error("INVALID_POLICY", "components[2].policy.timeout", code(SCRIPT, policy={"timeout": "0s"}), "script"),
    error("INVALID_SCRIPT", "components[2].ports[0].value", code("x = 1\ndef f(:\n  pass"), "script", 2, 7),
    error(
        "INVALID_SCRIPT",
        "components[2].ports[0].value.text",
        code({"type": "text", "text": "def g():\n  yield 1"}),
        "script",
        2,
        3,
    ),
    error("INVALID_SCRIPT", "components[2].ports[0].value", code("(" * 5000), "script", 1, 201),
    error("INVALID_SCRIPT", "components[2].ports[0].value", code("x" * 131_073), "script"),
    warning(
        "UNKNOWN_KEY",
        "note",
        raw(note="text"),
    ),
    warning(
        "UNKNOWN_KEY",
        "components[0].position.z",
        raw(components=[START | {"position": {"z": 1}}]),
        "start",
    ),
    warning(
        "UNKNOWN_KEY",
        "components[2].ports[0].value[0].then",
        switch({"route": "a", "when": "n > 1", "then": "b"}, routes=("a", "default")),
        "which",
    ),
    *(
        warning(
            "NEVER_TAKEN",
            f"components[2].ports[0].value[{number}].when",
            switch(*cases, routes=("a", "b", "default")),
            "which",
        )
        for number, cases in (
            (1, [{"route": "a", "when": "n > 1"}, {"route": "b", "when": " n > 1"}]),
            (1, [{"route": "a", "when": "False"}, {"route": "b", "when": "n > 1"}][::-1]),
        )
    ),
    warning(
        "NEVER_TAKEN",
        "components[2].ports[0].value[1].when",
        switch({"route": "a", "when": "True"}, {"route": "b", "when": "n > 1"}, routes=("a", "b")),
        "which",
    ),
    warning(
        "UNKNOWN_KEY",
        "components[2].policy.retries",
        code(SCRIPT, policy={"retries": 3}),
        "script",
    ),
    warning(
        "UNKNOWN_KEY",
        "components[2].policy.retry.attempts",
        code(SCRIPT, policy={"retry": {"attempts": 3}}),
        "script",
    ),
    warning(
        "POLICY_WITHOUT_EFFECT",
        "components[2].policy",
        sum_of("1", policy=POLICY),
        "sum",
    ),
    warning(
        "POLICY_WITHOUT_EFFECT",
        "components[2].policy.retry",
        code(SCRIPT, policy={"retry": {"initial_interval": "5s"}}),
        "script",
    ),
    warning(
        "POLICY_WITHOUT_EFFECT",
        "components[2].policy.retry",
        code(SCRIPT, policy={"retry": {"maximum_attempts": 1, "non_retryable_reasons": ["SCRIPT_ERROR"]}}),
        "script",
    ),
    warning(
        "POLICY_WITHOUT_EFFECT",
        "components[2].policy.retry.maximum_interval",
        code(SCRIPT, policy={"retry": {"maximum_attempts": 3, "initial_interval": "10s", "maximum_interval": "1s"}}),
        "script",
    ),
    warning("NOT_IN_SANDBOX", "components[2].ports[0].value", code("import time\n\ntime.sleep(5)"), "script", 3, 1),
    warning(
        "NOT_IN_SANDBOX",
        "components[2].ports[0].value.message",
        code({"type": "message", "message": {"content": [{"type": "text", "text": "import requests"}]}}),
        "script",
        1,
        8,
    ),
    warning(
        "ROUTE_LEADS_NOWHERE",
        "components[2].ports[0].value[0].route",
        switch({"route": "a", "when": "n > 1"}, routes=("default",)),
        "which",
    ),
    warning(
        "ROUTE_LEADS_NOWHERE",
        "components[2]",
        switch({"route": "a", "when": "n > 1"}, routes=("a",)),
        "which",
    ),
    warning("ROUTE_LEADS_NOWHERE", "components[2].ports[0].value", code("if 1:\n  set_result('sucess')"), "script", 2, 14),
    warning(
        "UNSET_OUTPUT",
        "connections[2].source_port",
        between(
            flows.component("script", "logic.code", code=SCRIPT), more=(flows.data("script", "reslut", "end", "value"),)
        ),
        "script",
    ),
    warning(
        "SEVERAL_SOURCES",
        "connections[4].target_port",
        between(*TWO, more=(flows.control("script", "other"), FIRST, SECOND)).replace(
            '"next"}, {"id": "script.r', '"success"}, {"id": "script.r'
        ),
        "end",
    ),
    warning(
        "SEVERAL_SOURCES",
        "components[2].ports[1]",
        between(flows.component("x", "flow.delay", ports=[SECONDS], seconds=2), routes=("next",)),
        "x",
    ),
    *(
        warning(
            "REPEATED_PORT",
            f"components[2].ports[{number}]",
            between(flows.component("x", "flow.delay", ports=list(ports)), routes=("next",)),
            "x",
        )
        for number, ports in (
            (1, (SECONDS, flows.port("data_input", "seconds"))),
            (1, (flows.port("data_input", "seconds"), SECONDS)),
            (2, (flows.port("flow_input", "in"), SECONDS, flows.port("flow_input", "in"))),
        )
    ),
    *(
        warning(
            "SEVERAL_SOURCES",
            "components[4].ports[2].value",
            between(
                flows.component("x", "logic.expression", expression="a + b"),
                *(flows.value(id_, "n", persistence=persistence, value=value) for id_, value in (("one", 1), ("two", 1.0))),
                more=(flows.data("one", "value", "x", "a"), flows.data("two", "value", "x", "b")),
            ),
            "two",
        )
        for persistence in ("execution", "session")
    ),
    warning(
        "UNUSED_VALUE",
        "components[2]",
        flows.document([START, END, flows.value("kept", "kept", value=1)], [THROUGH]),
        "kept",
    ),
    warning(
        "CATEGORY_MISMATCH",
        "components[1].category",
        flows.document([START, END | {"category": "banana"}], [THROUGH]),
        "end",
    ),
]
ELSEWHERE = {"UNSOUND_JOIN", "INVALID_SCOPE"}
"""Types that have a test of their own."""


@pytest.fixture(scope="module")
async def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[int, definition_pb2.CheckDefinitionResponse]:
    """What CheckDefinition says of each document of the table."""
    async with (
        served(tmp_path_factory.mktemp("data"), None) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await api.session(flows.steps(1))
        return {
            number: await ask(api, "CheckDefinition", revision=DRAFT, document=shown.document)
            for number, shown in enumerate(TABLE)
        }


def test_every_type_of_problem_is_shown() -> None:
    assert {shown.type for shown in TABLE} | ELSEWHERE == {type_.value for type_ in ProblemType}


@pytest.mark.parametrize("number", range(len(TABLE)), ids=[f"{shown.type}-{shown.path}" for shown in TABLE])
def test_a_document_has_the_problem_that_it_shows_and_no_other(
    checked: dict[int, definition_pb2.CheckDefinitionResponse], number: int
) -> None:
    shown, answer = TABLE[number], checked[number]
    found = [
        Shown(
            type=definition_pb2.DefinitionProblemType.Name(problem.type).removeprefix("DEFINITION_PROBLEM_TYPE_"),
            path=problem.path,
            document=shown.document,
            component=problem.component_id,
            line=problem.line,
            column=problem.column,
            severity=definition_pb2.DefinitionProblemSeverity.Name(problem.severity).rpartition("_")[2],
        )
        for problem in answer.problems
    ]
    assert found == [shown], [problem.message for problem in answer.problems]
    assert answer.runnable == (shown.severity == WARNING)


async def test_no_number_of_warnings_hides_an_error(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.session(code(SCRIPT))
    monkeypatch.setattr(check, "MAX_PROBLEMS", 5)
    document = raw(**{f"note-{number}": 0 for number in range(9)}, components=[START, flows.component("x", "no.such")])
    answer = await ask(api, "CheckDefinition", revision=DRAFT, document=document)
    types = [
        definition_pb2.DefinitionProblemType.Name(problem.type).removeprefix("DEFINITION_PROBLEM_TYPE_")
        for problem in answer.problems
    ]
    assert sorted(types) == sorted(["UNKNOWN_COMPONENT_TYPE", *["UNKNOWN_KEY"] * 4])
    assert not answer.runnable


async def test_a_commit_is_refused_with_every_error_and_no_warning(api: Api) -> None:
    await api.session(code("def f(:", policy={"retries": 3}))
    await api.put(switch({"route": "a", "when": "n > 1"}, routes=("default",)), alias="warned")
    commit = revision_pb2.CommitRevisionRequest(revision=DRAFT)
    refused = api.revisions.CommitRevision(commit)
    error = await expect_refusal(refused, grpc.StatusCode.FAILED_PRECONDITION, "INVALID_CONTENT")
    bad = error_details_pb2.BadRequest()
    assert unpack(error, bad)
    assert [violation.field for violation in bad.field_violations] == ["definitions[workflow].components[2].ports[0].value"]
    await api.put(code(SCRIPT, policy={"retries": 3}))
    await api.revisions.CommitRevision(commit)
