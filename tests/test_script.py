"""Scripts: whatever one gives, prints or raises is bounded before the server has it, and none harms the server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import flows
import pytest
from blobhub.v1 import event_pb2, execution_pb2, session_pb2
from blobhub_client import get_value, page
from blobhub_server.workflow.code import monty
from blobhub_server.workflow.code.voice import CUT, MAX_EMITTED_BYTES, MAX_PRINTED_BYTES
from calling import ask
from google.protobuf.message import Message
from runs import failing, run
from served import Api, Served, ServerProcess, connected, served
from waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.either_database

MAX_SERVER_MIB = 512
SHARED = "['x' * 1000000] * 990"
"""A megabyte in a script, and a gigabyte as JSON."""
LAUGHS = "x = ['ha']\nfor i in range(40): x = [x, x]\n"
"""Forty lists in a script, and a million of millions as JSON."""

HOSTILE = {
    "a gigabyte is emitted": f"emit_output({SHARED})",
    "a gigabyte is the result": f"set_data_output('result', {SHARED})",
    "laughs are the result": f"{LAUGHS}set_data_output('result', x)",
    "laughs without being made text": f"{LAUGHS}_emit(x)",
    "laughs in the place of the result": f"{LAUGHS}def _finish():\n    return ['r', False, x]",
    "many lists without being made text": "_emit([[] for i in range(150000)])",
    "long texts again and again": "for i in range(9):\n  try: _emit('x' * 15000000)\n  except ValueError: pass",
    "a long error": "raise ValueError('x' * 20000000)",
    "a long error of a key": "{}['x' * 20000000]",
    "a long name of a file": "open('x' * 10000000)",
    "printing without end": "while True:\n    print('x' * 1000000)",
    "a large last value": f"{LAUGHS}x",
}


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[Served]:
    """A server that leaves a script the time that it takes on a busy machine."""
    async with served(tmp_path / "data", database_url, code_seconds=DEADLINE_SECONDS) as made:
        yield made


def memory_mib(pid: int) -> int:
    """The most memory that a process has had so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) >> 10


def workers(pid: int) -> list[int]:
    """The worker processes of a server."""
    return [
        int(child) for of_thread in Path(f"/proc/{pid}/task").glob("*/children") for child in of_thread.read_text().split()
    ]


async def said(api: Api, execution: execution_pb2.Execution) -> list[event_pb2.ProcessorOutput]:
    """What an execution's scripts have emitted and printed."""
    request = session_pb2.ListEventsRequest(
        session=execution.session_id, execution=execution.id, types=["processor.output"], page_size=1000
    )
    return [event.processor_output async for event in page(api.sessions.ListEvents, request)]


async def test_five_hostile_scripts_at_once_leave_the_server_its_memory(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", code_seconds=1)
    async with server.running(), connected(server.address, server.admin_key) as api:
        session_id = await api.session(flows.code("1"))
        for name, source in HOSTILE.items():
            for number in range(5):
                await api.put(flows.code(f"{source}\n# {number}"), alias=f"hostile-{number}")
            ended = await asyncio.gather(*(run(api, session_id, f"hostile-{number}") for number in range(5)))
            assert {one.failure.reason.partition("_")[0] for one in ended} <= {"SCRIPT", ""}, name
            assert memory_mib(server.pid) < MAX_SERVER_MIB, name
        assert (await run(api, session_id)).state == execution_pb2.EXECUTION_STATE_COMPLETED


async def test_a_worker_that_is_killed_fails_its_step_and_no_other(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", code_seconds=DEADLINE_SECONDS)
    async with server.running(), connected(server.address, server.admin_key) as api:
        session_id = await api.session(flows.code("print('here')\nwhile True:\n    pass"))
        running = asyncio.create_task(run(api, session_id))
        request = session_pb2.WatchSessionRequest(session=session_id)
        async for message in api.sessions.WatchSession(request):
            if any(event.processor_output.printed == "here\n" for event in message.events):
                break  # It runs in the slow lane now, where nothing is held back.
        while not running.done():
            for pid in workers(server.pid):
                os.kill(pid, signal.SIGKILL)
            await asyncio.wait([running], timeout=1)
        assert running.result().failure.reason == "SCRIPT_CRASHED"
        await api.put(flows.code("set_data_output('result', 1)"))
        assert get_value(await run(api, session_id), "result") == 1


class PanicException(BaseException):
    """Stands for what an extension in Rust raises when it panics."""


async def test_a_panic_of_the_extension_is_an_error_of_the_component(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = await api.session(flows.code("1"))
    with monkeypatch.context() as patch:
        patch.setattr(monty, "_result", lambda left: (_ for _ in ()).throw(PanicException("index out of bounds")))
        ended = await run(api, session_id)
    assert ended.failure.reason == "SCRIPT_CRASHED"
    assert "index" not in ended.failure.message
    assert (await run(api, session_id)).state == execution_pb2.EXECUTION_STATE_COMPLETED


async def test_a_panic_under_a_handler_answers_internal(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(request: Message) -> None:
        raise PanicException("out of bounds")

    with monkeypatch.context() as patch:
        patch.setattr("blobhub_server.rpc.observed.validate", panic)
        with pytest.raises(Exception, match="internal error"):
            await ask(api, "ListOrganizations")
    await ask(api, "ListOrganizations")


@pytest.mark.parametrize(
    ("name", "words"),
    [("script-output-10-to-the-400", "integers from"), ("script-result-nested-60-deep", "at most 24")],
)
async def test_a_script_whose_output_no_value_can_be_fails_where_it_is_made(api: Api, name: str, words: str) -> None:
    """`script-output-10-to-the-400.json` and `script-result-nested-60-deep.json`."""
    session_id = await api.session(failing(f"{name}.json"))
    ended = await run(api, session_id)
    assert (ended.failure.reason, words in ended.failure.message) == ("SCRIPT_OUTPUT", True)
    request = session_pb2.ListEventsRequest(session=session_id, page_size=1000)
    assert [event.type async for event in page(api.sessions.ListEvents, request)][-1] == "flow.error"
    watch = session_pb2.WatchSessionRequest(session=session_id, replay_only=True)
    assert [event async for message in api.sessions.WatchSession(watch) for event in message.events]
    listing = execution_pb2.ListExecutionsRequest(blob="acme/pipeline")
    assert [one.id async for one in page(api.executions.ListExecutions, listing)] == [ended.id]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = []\nx.append(x)\nemit_output(x)", "within itself"),
        ("set_data_output('result', {1: 1, '1': 2})", "each key of an object once"),
        (f"for i in range(9):\n    emit_output('x' * {MAX_EMITTED_BYTES // 8})", f"beyond {MAX_EMITTED_BYTES} bytes"),
        ("_emit(1)", "JSON text"),
        ("_emit('[1')", "one JSON value"),
        ("_json = None\ndef _text(value):\n    return value\nset_data_output('result', [1])", "has replaced"),
    ],
)
async def test_an_output_that_is_refused_says_why(api: Api, code: str, words: str) -> None:
    ended = await run(api, await api.session(flows.code(code)))
    assert (ended.failure.reason, words in ended.failure.message) == ("SCRIPT_OUTPUT", True), ended.failure


async def test_a_script_can_handle_an_output_that_is_refused(api: Api) -> None:
    code = "try:\n    emit_output({1})\nexcept ValueError as error:\n    set_data_output('result', str(error))"
    ended = await run(api, await api.session(flows.code(code)))
    assert get_value(ended, "result") == "an output must hold nothing but what JSON has"


async def test_more_outputs_than_a_step_has_fail_it(api: Api) -> None:
    ended = await run(api, await api.session(flows.code("for i in range(1001):\n    emit_output(i)")))
    assert ended.failure.reason == "SCRIPT_ERROR"
    assert "1000" in ended.failure.message
    assert [get_value(one) for one in await said(api, ended)] == list(range(1000))


@pytest.mark.parametrize("slow", [False, True])
async def test_printed_text_is_an_output_of_its_own_kind_in_order_with_the_others(api: Api, slow: bool) -> None:
    work = "n = 0\nwhile n < 3000000:\n    n += 1\n" if slow else ""
    code = f"print('one')\nprint('two', 2, sep=', ')\nemit_output('a')\n{work}print('é')\nemit_output({{'b': ''}})\nprint()"
    ended = await run(api, await api.session(flows.code(code)))
    outputs = await said(api, ended)
    assert [one.printed or get_value(one) for one in outputs] == ["one\ntwo, 2\n", "a", "é\n", {"b": ""}, "\n"]
    assert [one.HasField("value") for one in outputs] == [False, True, False, True, False]


async def test_what_was_said_before_an_error_is_kept(api: Api) -> None:
    ended = await run(api, await api.session(flows.code("print('here')\nemit_output(1)\nraise ValueError('no')")))
    assert ended.failure.line == 3
    assert [one.printed or get_value(one) for one in await said(api, ended)] == ["here\n", 1]


async def test_printed_text_beyond_its_bound_is_cut_with_a_note(api: Api) -> None:
    code = "print('a')\nfor i in range(200):\n    print('é' * 1000)\nemit_output('after')"
    ended = await run(api, await api.session(flows.code(code)))
    *printed, after = await said(api, ended)
    assert get_value(after) == "after"
    text = "".join(one.printed for one in printed)
    assert text.endswith(CUT)
    assert MAX_PRINTED_BYTES - 1 <= len(text.removesuffix(CUT).encode()) <= MAX_PRINTED_BYTES
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED


@pytest.mark.parametrize("call", ["import time\ntime.sleep(1)", "from time import sleep\nsleep(1)"])
async def test_a_script_that_sleeps_is_told_of_delays(api: Api, call: str) -> None:
    ended = await run(api, await api.session(flows.code(call)))
    assert (ended.failure.reason, ended.failure.line) == ("SCRIPT_ERROR", 2)
    assert "time.sleep is not available: use flow.delay" in ended.failure.message


async def test_a_script_that_ends_with_a_backslash_does_not_parse(api: Api) -> None:
    """Its text comes as an input, as one in a definition is checked before."""
    parts = [flows.component("start", "flow.start"), flows.component("script", "logic.code")]
    parts.append(flows.value("code", "code", persistence="execution", value="x = \\"))
    joined = [flows.control("start", "script"), flows.data("code", "value", "script", "code")]
    ended = await run(api, await api.session(flows.document(parts, joined)))
    assert ended.failure.reason == "SCRIPT_SYNTAX"
