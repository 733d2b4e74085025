"""Drawings of definitions, and of executions on them."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import acme
import flows
import grpc
import pytest
from blobhub.v1 import definition_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.drawing import Drawing, Edge, Group, Shape, Vertex, to_dot, to_mermaid
from blobhub_server.workflow.definitions.picture import Counts, draw
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.errors import DefinitionNotRunnable
from blobhub_server.workflow.services.definition_graph import (
    MERMAID_CHARACTERS,
    MERMAID_COMPONENTS,
    MERMAID_CONNECTIONS,
    render,
)
from calling import ask, outcome
from runs import run
from scoping import controls, inside, script
from served import Api, Served, connected
from several_servers import ended
from waiting import until

pytestmark = pytest.mark.either_database

TESTS = Path(__file__).parent
DOT, MERMAID = definition_pb2.DEFINITION_GRAPH_FORMAT_DOT, definition_pb2.DEFINITION_GRAPH_FORMAT_MERMAID
FORMATS = {"dot": DOT, "mmd": MERMAID}
HERE = "acme/pipeline@draft/workflow"
HOSTILE = (
    'a"];\n n9 [label="&<b>#\\',
    *("end", "1. item", "12) item", "- item", "+ item", "`**b**`", "~~s~~", "%%{init: {'theme':'forest'}}%%", "$$x^2$$"),
    *("</div><script>alert(1)</script>", "&lt;i&gt;", r"a\nb", r"\N \G \l", "fa:fa-car", "]|)}", "%% comment", '"""'),
    *("classDef x fill:#fff", "style x fill:#fff;", "click n0 call x()", "#35;", "subgraph", "---", "x\u202ey\u200bz\x07"),
    *("é 😀 ☃", "a" * 300, '"' * 300),
)
"""Names that Graphviz or Mermaid would read as something else."""


def workflow(name: str) -> str:
    return (TESTS / "workflows" / f"{name}.json").read_text(encoding="utf-8")


def require_golden(name: str, text: str) -> None:
    """Fail unless a drawing is the one in a file; the id of the execution is another each time."""
    told = re.sub(r"execution [0-9a-f-]{36}", "execution ID", text)
    assert told == (TESTS / "golden" / name).read_text(encoding="utf-8"), told


async def drawn(api: Api, format_: int = MERMAID, definition: str = HERE, **fields: Any) -> Any:
    return await ask(api, "GetDefinitionGraph", definition=definition, format=format_, **fields)


async def test_real_definitions_are_drawn_with_their_scopes(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    for name in ("expense_approval", "trip_saga"):
        await api.put(workflow(name))
        for suffix, format_ in FORMATS.items():
            answer = await drawn(api, format_)
            require_golden(f"{name}.{suffix}", answer.text)
            assert answer.digest == hashlib.sha256(workflow(name).encode()).hexdigest()
            assert (answer.execution_sequence, answer.omitted_components, answer.omitted_connections) == (0, 0, 0)


@pytest.mark.both_databases
async def test_what_an_execution_has_done_is_on_the_drawing(api: Api) -> None:
    session_id = await api.session(workflow("trip_saga"))
    failed = await run(api, session_id, declined="flight")
    for suffix, format_ in FORMATS.items():
        answer = await drawn(api, format_, execution=failed.id)
        require_golden(f"trip_saga_failed.{suffix}", answer.text)
        assert answer.execution_sequence == failed.last_execution_sequence


async def test_an_execution_that_goes_on_is_drawn_as_far_as_it_has_come(api: Api) -> None:
    session_id = await api.session(workflow("expense_approval"))
    inputs = [{"alias": "expense", "value_json": '{"id": "e-1", "amount": 1}'}]
    spec = {"definition": "workflow", "input_data": inputs}
    execution = (await ask(api, "StartExecution", session=session_id, spec=spec)).execution.id

    async def waits() -> bool:
        return '"decision<br/>flow.wait<br/>1 waiting"]:::waiting' in (await drawn(api, execution=execution)).text

    await until(waits)
    await ask(api, "SignalExecution", execution=execution, name="decision", key="e-1", value_json='{"approved": false}')
    await ended(api, execution)
    text = (await drawn(api, execution=execution.upper())).text
    assert '"decision<br/>flow.wait<br/>1 done"]:::done' in text
    assert '"pay<br/>logic.expression"]\n' in text


def test_what_is_left_retried_and_repeated_is_counted() -> None:
    counts = Counts()
    counts.states.update({"done": 2, "left": 1, "retrying": 1, "running": 0})
    assert (counts.line, counts.fill) == ("2 done, 1 left, 1 retrying", "waiting")
    counts.states["failed"] += 1
    assert counts.fill == "failed"


async def test_the_document_that_an_execution_runs_is_drawn_until_it_is_gone(server: Served, api: Api) -> None:
    old = flows.steps(1)
    session_id = await api.session(old)
    execution = (await run(api, session_id)).id
    await api.put(flows.steps(2))
    digest = hashlib.sha256(old.encode()).hexdigest()
    answer = await drawn(api, execution=execution)
    assert (answer.digest, answer.text.count("1 done")) == (digest, 3)
    assert (await drawn(api)).text.count("logic.expression") == 2
    (server.settings.data_dir / "objects" / "sha256" / digest[:2] / digest[2:]).unlink()
    request = definition_pb2.GetDefinitionGraphRequest(definition=HERE, format=MERMAID, execution=execution)
    error = await expect_refusal(api.definitions.GetDefinitionGraph(request), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert "not kept any more" in (error.details() or "")


async def test_an_execution_is_drawn_on_its_own_definition_and_for_those_with_a_role_alone(server: Served, api: Api) -> None:
    session_id = await api.session(flows.steps(1))
    execution = (await run(api, session_id)).id
    await api.put(flows.steps(1), alias="workflow-2")
    nobody = "00000000-0000-7000-8000-000000000000"
    other = drawn(api, definition="acme/pipeline@draft/workflow-2", execution=execution)
    assert {await outcome(other), await outcome(drawn(api, execution=nobody))} == {"NOT_FOUND"}
    await acme.update_blob(api, visibility=acme.PUBLIC)
    revision = await api.publish()
    reference = f"{revision.id}/workflow"
    assert "1 done" in (await drawn(api, definition=reference, execution=execution)).text
    async with connected(server.address, None) as stranger:
        assert "start" in (await drawn(stranger, definition=reference)).text
        for given in (execution, nobody):
            assert await outcome(drawn(stranger, definition=reference, execution=given)) == "NOT_FOUND"


def large(count: int) -> str:
    """A chain of so many components, in the order from its end, each with a name that is all signs."""
    names = ["start", *(f"c{number}" for number in range(count - 1))]
    components = [flows.component(name, "flow.start" if name == "start" else "logic.expression") for name in names[::-1]]
    ways = [flows.control(a, b, "success") for a, b in itertools.pairwise(names)]
    return flows.document([{**each, "name": each["id"] + '"' * 200} for each in components], ways)


def test_a_large_definition_is_bounded_for_mermaid_and_whole_for_graphviz() -> None:
    text, picture = render(large(2_000).encode(), MERMAID, None, "")
    shown = 2_000 - picture.omitted_components
    assert 50 < shown < MERMAID_COMPONENTS
    assert picture.omitted_connections == 1_999 - (shown - 1)
    assert len(text) <= MERMAID_CHARACTERS
    assert "flow.start" in text
    assert f'"and {picture.omitted_components:,} more"' in text
    text, picture = render(large(2_000).encode(), DOT, None, "")
    assert (picture.omitted_components, picture.omitted_connections) == (0, 0)
    assert len(re.findall(r"^  n\d", text, re.M)) == 2_000 + 1_999


def test_what_was_entered_is_drawn_before_what_is_near_the_start() -> None:
    counts = {f"c{number}": Counts() for number in range(390, 395)}
    definition = parse(large(400).encode())
    picture = draw(definition, max_components=10, max_connections=MERMAID_CONNECTIONS, counts=counts)
    names = [vertex.lines[0].strip('"') for vertex in picture.drawing.vertices]
    assert names == ["c394", "c393", "c392", "c391", "c390", "c3", "c2", "c1", "c0", "start", "and 390 more"]
    edges = [flows.control(a, b, f"r{n}") for n, (a, b) in enumerate([("a", "b")] * 20)]
    many = parse(flows.document([flows.component(id_, "flow.join") for id_ in "ab"], edges).encode())
    assert draw(many, max_components=2, max_connections=15).omitted_connections == 5


def read_mermaid(text: str) -> str:
    """A label as Mermaid shows it."""
    return unescape(re.sub(r"#(?=[0-9])", "&#", re.sub(r"#(?=[a-z])", "&", text)))


def test_names_do_not_get_out_of_their_places() -> None:
    vertices = [Vertex(lines=[name], shape=[*Shape][number % 4], group=number % 2) for number, name in enumerate(HOSTILE)]
    edges = [Edge(start=number, end=number, label=name) for number, name in enumerate(HOSTILE)]
    groups = [Group(label=HOSTILE[0]), Group(label=HOSTILE[8], parent=0)]
    drawing = Drawing(vertices=vertices, edges=edges, groups=groups, title=HOSTILE[0])
    shown = [
        "".join(each if each.isprintable() else " " for each in (name if len(name) <= 40 else f"{name[:37]}..."))
        for name in HOSTILE
    ]
    mermaid = to_mermaid(drawing)
    labels = re.findall(r'^ +n\d+[\[({]+"([^"]*)"', mermaid, re.M)
    assert sorted(map(read_mermaid, labels)) == sorted(shown)
    assert [read_mermaid(label) for label in re.findall(r'\|"([^"]*)"\|', mermaid)] == shown
    body = mermaid.split("flowchart TD\n")[1]
    assert len(body.splitlines()) == 2 * len(HOSTILE) + 2 * len(groups)
    assert not re.search(r"%|`|\\|\$|'|[0-9][.)] |:[^:\s]*#[^;]*;.*classDef", body)
    dot = to_dot(drawing, "definition")
    labels = re.findall(r'^ +n\d+ \[label="((?:[^"\\]|\\.)*)"', dot, re.M)
    assert sorted(unescape(re.sub(r"\\(.)", r"\1", label)) for label in labels) == sorted(shown)
    assert len(dot.splitlines()) == 2 * len(HOSTILE) + 2 * len(groups) + 4


def test_a_definition_that_cannot_run_is_drawn_as_far_as_it_goes() -> None:
    parts = [
        flows.component("a", "no.such"),
        flows.component("a", "flow.end"),
        *inside("d", script("c")),
        *inside("c", script("d")),
    ]
    deep = [*inside("a", script("s0")), *(each for n in range(1, 20) for each in inside(f"s{n - 1}", script(f"s{n}")))]
    document = flows.document([*parts, *deep, *inside("gone", script("e"))], controls("a.next gone", "gone.x a", "c.y e"))
    for format_ in FORMATS.values():
        text, picture = render(document.encode(), format_, None, "")
        assert (picture.omitted_components, picture.omitted_connections) == (0, 0)
        assert len(picture.drawing.vertices) == 24
        assert text.count('"a"' if format_ == DOT else '["a"]') == 1, "one frame"
    depth = max(len(line) - len(line.lstrip()) for line in text.splitlines())
    assert depth == 2 + 2 * 8


def test_a_document_that_another_version_of_the_server_took_says_what_is_wrong_with_it() -> None:
    with pytest.raises(DefinitionNotRunnable) as raised:
        render(json.dumps({"type": "workflow_definition", "components": {}}).encode(), DOT, None, "")
    assert [violation.field for violation in raised.value.violations] == ["components"]
