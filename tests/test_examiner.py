"""Large documents are examined in a process of their own: with the same verdict, and whatever becomes of the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import flows
import pytest
import uvloop
from acme import DRAFT
from blobhub.v1 import definition_pb2, execution_pb2
from blobhub_server.errors import Overloaded
from blobhub_server.workflow.code.contract import ScriptFlaw
from blobhub_server.workflow.definitions import process
from blobhub_server.workflow.definitions.examination import Verdict, examine, verdict_of
from blobhub_server.workflow.definitions.process import Examiner, examining
from calling import ask
from interpreting import REGISTRY
from large_definitions import LARGE
from served import Api, connected, served
from waiting import until, within_deadline

FLAWED = flows.code("x =").encode()


async def flaws_of(scripts: Sequence[str]) -> Mapping[str, ScriptFlaw]:
    """One flaw for each script."""
    return {
        script: ScriptFlaw(message=f"is {script}\u2028", line=number, column=2) for number, script in enumerate(scripts, 1)
    }


async def in_place(document: bytes) -> Verdict:
    """The verdict as it is made without another process."""
    examined = examine(document, REGISTRY)
    return verdict_of(examined.check(REGISTRY, await flaws_of(examined.scripts)))


@pytest.fixture
async def examiner() -> AsyncIterator[Examiner]:
    async with examining() as made:
        yield made


def pid_of(examiner: Examiner) -> int:
    assert examiner._process is not None
    return examiner._process.pid


def runs(pid: int) -> bool:
    """Whether a process runs, or is a zombie that nobody has waited for."""
    return Path(f"/proc/{pid}").exists()


async def test_the_verdict_is_that_of_the_same_reader_and_check_whoever_runs_them(examiner: Examiner) -> None:
    surrogates = b'{"type": "workflow_definition", "\\ud800\\n": 1, "components": []}'
    for document in (*(text.encode() for text in LARGE.values()), FLAWED, surrogates, b"\xff\n", b"", b"{}"):
        assert await within_deadline(examiner.examine(document, flaws_of)) == await in_place(document), document[:80]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_process_that_is_killed_is_started_anew_on_either_loop(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def kill_and_go_on() -> None:
        async with examining() as examiner:
            first = await examiner.examine(FLAWED, flaws_of)
            for seconds in (0, 0, 0.001, 0.01, 0.1, 0.5):  # The loop learns of it before, meanwhile and afterwards.
                killed = pid_of(examiner)
                os.kill(killed, signal.SIGKILL)
                await asyncio.sleep(seconds)
                assert await within_deadline(examiner.examine(FLAWED, flaws_of)) == first
                assert pid_of(examiner) != killed
                assert not runs(killed)

    run(kill_and_go_on())


async def test_a_process_that_is_killed_while_scripts_are_looked_at_reads_the_document_again(examiner: Examiner) -> None:
    async def kill(scripts: Sequence[str]) -> Mapping[str, ScriptFlaw]:
        os.kill(pid_of(examiner), signal.SIGKILL)
        return await flaws_of(scripts)

    assert await within_deadline(examiner.examine(FLAWED, kill)) == await in_place(FLAWED)


async def test_a_process_that_always_ends_is_told_as_an_overload(
    examiner: Examiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CHILD", "blobhub_server.nothing")
    with pytest.raises(Overloaded):
        await within_deadline(examiner.examine(FLAWED, flaws_of))
    monkeypatch.undo()
    assert await within_deadline(examiner.examine(FLAWED, flaws_of)) == await in_place(FLAWED)


async def test_a_document_that_takes_too_long_is_told_as_an_overload(
    examiner: Examiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await examiner.examine(FLAWED, flaws_of)
    stopped = pid_of(examiner)
    os.kill(stopped, signal.SIGSTOP)
    monkeypatch.setattr(process, "MAX_SECONDS", 0.1)
    with pytest.raises(Overloaded):
        await within_deadline(examiner.examine(FLAWED, flaws_of))
    assert not runs(stopped)
    monkeypatch.undo()
    assert await within_deadline(examiner.examine(FLAWED, flaws_of)) == await in_place(FLAWED)


async def test_an_answer_that_nobody_waits_for_any_more_is_nobody_elses(examiner: Examiner) -> None:
    await examiner.examine(FLAWED, flaws_of)
    os.kill(pid_of(examiner), signal.SIGSTOP)
    asking = asyncio.create_task(examiner.examine(b"{}", flaws_of))
    await until(examiner._turn.locked)
    await asyncio.sleep(0.05)
    asking.cancel()
    assert await within_deadline(examiner.examine(FLAWED, flaws_of)) == await in_place(FLAWED)


async def test_a_process_without_work_ends_and_so_does_one_whose_server_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "IDLE_SECONDS", 0.01)
    async with examining() as examiner:
        await examiner.examine(FLAWED, flaws_of)
        idle = pid_of(examiner)
        await until(lambda: not runs(idle))
        monkeypatch.undo()
        await examiner.examine(FLAWED, flaws_of)
        last = pid_of(examiner)
    assert not runs(last)


async def test_the_process_has_nothing_of_the_servers_environment(
    examiner: Examiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOBHUB_MASTER_KEY", "a secret")
    await examiner.examine(FLAWED, flaws_of)
    environment = Path(f"/proc/{pid_of(examiner)}/environ").read_bytes()
    assert {each.partition(b"=")[0] for each in environment.split(b"\0") if each} == {
        *(b"PYTHONPATH", b"MALLOC_ARENA_MAX", b"LC_ALL")
    }


async def test_a_large_definition_is_checked_stored_and_run_as_a_small_one_is(tmp_path: Path) -> None:
    async with served(tmp_path) as server, connected(server.address, server.admin_key) as api:
        session_id = await api.session(flows.steps(300), alias="large")
        checked = await ask(api, "CheckDefinition", revision=DRAFT, definition="large")
        assert (checked.runnable, list(checked.problems)) == (True, [])
        assert await result_of(api, session_id, "large") == 300
        broken = flows.code("x =\n" + "#" * 40_000)
        problem = (await ask(api, "CheckDefinition", revision=DRAFT, document=broken)).problems[0]
        assert problem.type == definition_pb2.DEFINITION_PROBLEM_TYPE_INVALID_SCRIPT
        assert problem.line == 1


async def result_of(api: Api, session_id: str, alias: str) -> float:
    request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": alias})
    last = [message async for message in api.executions.RunExecution(request)][-1]
    return last.execution.result.number_value
