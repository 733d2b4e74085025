"""Others of the kinds of `failing/`: inputs of which none may hang, end INTERNAL, or go wrong without a word.

Each has what becomes of it: the reason of the failure, or the result.
"""

from __future__ import annotations

from typing import Any

import flows
import grpc
import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2, execution_pb2, session_pb2
from blobhub_client import get_value, page
from blobhub_server.blobtypes.conformance import expect_refusal
from calling import ask, outcome
from google.protobuf.duration_pb2 import Duration
from runs import run
from served import Api, connected, served

NESTED = "x = 0\nfor i in range({depth}):\n  x = {around}\n{give}"
SCRIPTS: dict[str, tuple[str, Any]] = {
    "raises a number": ("raise 5", "SCRIPT_ERROR"),
    "raises nothing": ("raise None", "SCRIPT_ERROR"),
    "raises again without an error": ("raise", "SCRIPT_ERROR"),
    "raises what ends programs": ("raise KeyboardInterrupt()", "SCRIPT_ERROR"),
    "leaves with a code": ("raise SystemExit(3)", "SCRIPT_ERROR"),
    "raises a zero character": ("raise ValueError('a\\x00b')", "SCRIPT_ERROR"),
    "raises a long text": ("raise ValueError('é' * 100000)", "SCRIPT_ERROR"),
    "exits in a function": ("def f():\n  exit()\nset_data_output('result', 1)\nf()\nset_data_output('result', 2)", 1),
    "exits in a comprehension": ("set_data_output('result', 1)\n[exit() for i in [1]]\nset_data_output('result', 2)", 1),
    "exits in a key": (
        "set_data_output('result', 1)\nsorted([1, 2], key=lambda x: exit())\nset_data_output('result', 2)",
        1,
    ),
    "exits past an except": ("try:\n  exit()\nexcept Exception:\n  set_data_output('result', 1)", None),
    "sets an output after its exit": ("try:\n  exit()\nfinally:\n  set_data_output('result', 'late')", "late"),
    "exits with a code": ("exit(3)", "SCRIPT_ERROR"),
    "chooses no route": ("set_result('')", "ROUTE_LEADS_NOWHERE"),
    "chooses a list": ("set_result(['success'])", "ROUTE_LEADS_NOWHERE"),
    "chooses with a space": ("set_result('success ')", "ROUTE_LEADS_NOWHERE"),
    "chooses in upper case": ("set_result('SUCCESS')", "ROUTE_LEADS_NOWHERE"),
    "chooses a long route": ("set_result('x' * 300)", "INVALID_OUTPUT"),
    "chooses to fail": ("set_result('failure')", "UNHANDLED_FAILURE"),
    "gives a set": ("set_data_output('result', {1})", "SCRIPT_OUTPUT"),
    "gives a function": ("set_data_output('result', print)", "SCRIPT_OUTPUT"),
    "gives bytes": ("set_data_output('result', b'x')", "SCRIPT_OUTPUT"),
    "gives a range": ("set_data_output('result', range(3))", "SCRIPT_OUTPUT"),
    "gives an error": ("set_data_output('result', ValueError('x'))", "SCRIPT_OUTPUT"),
    "gives its inputs": ("set_data_output('result', inputs)", "SCRIPT_OUTPUT"),
    "gives not a number": ("set_data_output('result', float('nan'))", "SCRIPT_OUTPUT"),
    "gives a number beyond floats": ("set_data_output('result', 1e400)", "SCRIPT_OUTPUT"),
    "gives an integer beyond 64 bits": ("set_data_output('result', 2**64)", "SCRIPT_OUTPUT"),
    "gives the largest integer": ("set_data_output('result', 2**64 - 1)", 2**64 - 1),
    "gives an integer that is no float": ("set_data_output('result', 2**53 + 1)", 2**53 + 1),
    "gives a key of two": ("set_data_output('result', {(1, 2): 1})", "SCRIPT_OUTPUT"),
    "gives an empty key": ("set_data_output('result', {'': 1})", {"": 1}),
    "gives a zero character": ("set_data_output('result', 'a\\x00b')", "a\x00b"),
    "gives itself": ("x = {}\nx['x'] = x\nset_data_output('result', x)", "SCRIPT_OUTPUT"),
    "gives a mebibyte with its name": ("set_data_output('result', 'x' * (2**20 - 2))", "SCRIPT_OUTPUT"),
    "calls itself without end": ("def f(n):\n  return f(n + 1)\nf(0)", "SCRIPT_RECURSION"),
    "compares deep lists": ("x, y = [], []\nfor i in range(99999):\n  x, y = [x], [y]\nx == y", "SCRIPT_RECURSION"),
    "prints a list within itself": ("x = []\nx.append(x)\nprint(x)\nset_data_output('result', repr(x))", "[[...]]"),
    "makes a huge power": ("10 ** 10 ** 8", "SCRIPT_MEMORY"),
    "formats a huge width": ("'%1000000000d' % 1", "SCRIPT_MEMORY"),
    "asks for what is not in an input": ("set_data_output('result', get_data_input('no'))", None),
    **{
        f"gives lists {depth} deep": (
            NESTED.format(depth=depth, around="[x]", give="set_data_output('result', len(str(x)))\nemit_output(x)"),
            2 * depth + 1 if depth <= 24 else "SCRIPT_OUTPUT",
        )
        for depth in (23, 24, 25, 49, 99)
    },
    "gives objects a thousand deep": (
        NESTED.format(depth=1000, around="{'a': x}", give="set_data_output('result', x)"),
        "SCRIPT_OUTPUT",
    ),
}
DELAYS: dict[str, tuple[Any, str]] = {
    "0": (0, ""),
    "-0.0": (-0.0, ""),
    "1e-9": (1e-9, ""),
    "-1": (-1, "INVALID_INPUT"),
    "1e308": (1e308, "INVALID_INPUT"),
    "2**63": (2**63, "INVALID_INPUT"),
    "315576000001": (315_576_000_001, "INVALID_INPUT"),
    "a text": ("1", "INVALID_INPUT"),
    "a text object": ({"type": "text", "text": "1"}, "INVALID_INPUT"),
    "a float object": ({"type": "float", "float": 0.01}, ""),
    "a flag": (True, "INVALID_INPUT"),
    "null": (None, "INVALID_INPUT"),
    "a list": ([1], "INVALID_INPUT"),
}
DURATIONS = (
    "1e400s",
    "-1s",
    "315576000001s",
    "1.0000000001s",
    "1",
    "",
    "1m",
    " 1s",
    ".5s",
    "1.s",
    "+1s",
    "nans",
    "1s\n",
    5,
    [],
)


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> Api:
    """A client of one server for all of them."""
    async with (
        served(tmp_path_factory.mktemp("data"), None) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await api.session(flows.steps(1))
        yield api


async def end_of(api: Api, document: str, **inputs: Any) -> execution_pb2.Execution:
    """What becomes of a definition in a session of its own, whose log and executions are read."""
    await api.put(document)
    session = (await ask(api, "CreateSession", revision=DRAFT)).session.id
    ended = await run(api, session, **inputs)
    events = session_pb2.ListEventsRequest(session=session, page_size=1000)
    assert [event.type async for event in page(api.sessions.ListEvents, events)][-1].startswith("flow.")
    listing = execution_pb2.ListExecutionsRequest(blob="acme/pipeline", session=session)
    assert [one.id async for one in page(api.executions.ListExecutions, listing)] == [ended.id]
    return ended


@pytest.mark.parametrize("kind", SCRIPTS)
async def test_a_script_ends_with_its_reason_or_its_result(shared: Api, kind: str) -> None:
    source, expected = SCRIPTS[kind]
    ended = await end_of(shared, flows.code(source))
    if isinstance(expected, str) and expected.isupper():
        assert ended.failure.reason == expected, ended.failure
        return
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED, ended.failure
    assert get_value(ended, "result") == expected


@pytest.mark.parametrize(
    ("source", "words", "line"),
    [
        ("if 0:\n  raise ValueError('text')\nraise SystemExit(3)", "one text", 3),
        ("x = 1\nexit(3)", "exit() takes 0 positional arguments but 1 was given", 2),
        ("def f():\n  set_result()\n\nf()", "set_result() missing 1 required positional argument: 'route'", 2),
        ("\nset_result('a', terminall=True)", "unexpected keyword argument 'terminall'", 2),
        ("\nset_data_output('a')", "missing 1 required positional argument: 'value'", 2),
    ],
)
async def test_arguments_that_do_not_fit_are_told_with_their_line(shared: Api, source: str, words: str, line: int) -> None:
    failure = (await end_of(shared, flows.code(source))).failure
    assert words in failure.message
    assert "nternal" not in failure.message
    assert failure.reason == "SCRIPT_ERROR"
    assert failure.line == line


@pytest.mark.parametrize("parts", [(1, -1), (-1, 1), (1, 1_000_000_000)])
async def test_a_duration_that_protobuf_does_not_allow_is_refused(shared: Api, parts: tuple[int, int]) -> None:
    timeout = Duration(seconds=parts[0], nanos=parts[1])
    session = (await ask(shared, "CreateSession", revision=DRAFT)).session.id
    spec = execution_pb2.ExecutionSpec(definition="workflow", timeout=timeout)
    refused = ask(shared, "StartExecution", session=session, spec=spec)
    error = await expect_refusal(refused, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "spec.timeout" in error.details()


@pytest.mark.parametrize("kind", DELAYS)
async def test_a_span_is_waited_for_or_refused_the_same_in_a_definition_and_as_an_input(shared: Api, kind: str) -> None:
    seconds, reason = DELAYS[kind]
    parts = [flows.component("start", "flow.start"), flows.component("wait", "flow.delay")]
    given = flows.value("given", "given", persistence="execution")
    connected_ = [flows.control("start", "wait"), flows.data("given", "value", "wait", "seconds")]
    ended = await end_of(shared, flows.document([*parts, given], connected_), given=seconds)
    assert ended.failure.reason == reason
    parts[1]["ports"] = [{"category": "data_input", "route": "seconds", "value": seconds}]
    answer = await ask(shared, "CheckDefinition", revision=DRAFT, document=flows.document(parts, connected_[:1]))
    assert answer.runnable == (not reason), answer.problems


@pytest.mark.parametrize("duration", DURATIONS, ids=repr)
@pytest.mark.parametrize("name", ["timeout", "initial_interval", "maximum_interval"])
async def test_what_is_no_duration_is_told_at_its_place_and_refused(shared: Api, name: str, duration: Any) -> None:
    policy = {name: duration} if name == "timeout" else {"retry": {"maximum_attempts": 2, name: duration}}
    document = flows.code("set_data_output('result', 1)", policy=policy)
    answer = await ask(shared, "CheckDefinition", revision=DRAFT, document=document)
    path = "components[2].policy.timeout" if name == "timeout" else f"components[2].policy.retry.{name}"
    invalid = definition_pb2.DEFINITION_PROBLEM_TYPE_INVALID_DOCUMENT
    assert [(problem.path, problem.type) for problem in answer.problems] == [(path, invalid)]
    assert await outcome(ask(shared, "PutDefinition", revision=DRAFT, alias="no", document=document)) == "INVALID_DEFINITION"
