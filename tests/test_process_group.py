"""Processes beside the server: whoever is cancelled, and whatever they have started, nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from blobhub_server.errors import Overloaded
from blobhub_server.onnx.inference.limits import ProcessLimits
from blobhub_server.onnx.inference.process import ModelProcess
from blobhub_server.onnx.processing.limits import ProcessingLimits
from blobhub_server.onnx.processing.processor import ModelProcessor
from blobhub_server.process_group import Output, ProcessGroup
from blobhub_server.workflow.code.contract import ScriptFlaw
from blobhub_server.workflow.definitions.process import examining
from impostor import any_runs, linger
from waiting import DEADLINE_SECONDS, until, within_deadline

Run = Callable[[Coroutine[Any, Any, None]], None]
STEPS = 10
"""How many turns of the loop a process may take to begin: that of asyncio, whose pipes are two, takes eight."""

pytestmark = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


async def look_at_a_model(folder: Path) -> None:
    (folder / "model").write_bytes(b"model")
    with (folder / "model").open("rb") as model:
        await ModelProcessor(1).process(model, ProcessingLimits(), ("organization", "caller"))


async def load_a_model(folder: Path) -> None:
    async def read() -> AsyncIterator[bytes]:
        yield b"model"

    await ModelProcess(ProcessLimits(), lambda error, requests: None).start(read(), len(b"model"))


async def examine_a_document(folder: Path) -> None:
    async def read_scripts(scripts: Sequence[str]) -> Mapping[str, ScriptFlaw]:
        return {}

    async with examining() as examiner:
        await examiner.examine(b"{}", read_scripts)


@pytest.mark.parametrize("begin", [look_at_a_model, load_a_model, examine_a_document])
def test_whoever_is_cancelled_while_a_process_begins_leaves_nothing_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Path], Awaitable[None]], run: Run
) -> None:
    """Cancelled in each turn of the loop, when the process has started another one, which has its pipes as well."""
    pids = linger(tmp_path, monkeypatch)
    begin_process = subprocess.Popen

    def begin_late(*command: Any, **given: Any) -> subprocess.Popen[bytes]:
        process = begin_process(*command, **given)
        end = time.monotonic() + DEADLINE_SECONDS
        while not pids.exists() and time.monotonic() < end:
            time.sleep(0.001)
        return process

    async def cancel_after(turns: int) -> bool:
        task = asyncio.ensure_future(begin(tmp_path))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=DEADLINE_SECONDS)
        assert done, "it waits for what the process has started"
        assert task.cancelled()
        if not pids.exists():
            return False
        await until(lambda: not any_runs(pids))
        return True

    async def cancel_in_each_turn() -> None:
        begun = 0
        for turns in range(STEPS):
            begun += await cancel_after(turns)
            pids.unlink(missing_ok=True)
        assert begun > STEPS // 2

    monkeypatch.setattr(subprocess, "Popen", begin_late)
    try:
        run(cancel_in_each_turn())
    finally:
        end_all(pids)


def end_all(pids: Path) -> None:
    """End what a test that failed has left."""
    for pid in pids.read_text().split() if pids.exists() else ():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def shell(script: str, stdout: Output | None = None, stderr: Output | None = None) -> ProcessGroup:
    with open(os.devnull, "rb") as nothing:
        return ProcessGroup("/bin/sh", "-c", script, env={"PATH": os.defpath}, stdin=nothing, stdout=stdout, stderr=stderr)


def test_what_a_process_has_started_is_killed_when_it_ends(tmp_path: Path, run: Run) -> None:
    pids = tmp_path / "pids"

    async def outlive() -> None:
        process = shell(f"sleep 600 & echo $! >{pids}; exit 3")
        assert await within_deadline(process.wait()) == 3
        await until(lambda: not any_runs(pids))
        process.kill()  # There is nothing left to kill, and nobody who has its id by now is.

    run(outlive())


def test_whoever_has_left_the_group_with_its_output_keeps_nobody_waiting(tmp_path: Path, run: Run) -> None:
    pids = tmp_path / "pids"

    async def leave() -> None:
        output = Output(100)
        process = shell(f"setsid sh -c 'echo $$ >{pids}; yes' & while ! [ -s {pids} ]; do sleep 0.01; done", output)
        assert await within_deadline(process.wait()) == 0
        await until(lambda: len(output.data) == 100)
        await within_deadline(process.end())

    try:
        run(leave())
    finally:
        end_all(pids)


def test_the_first_bytes_of_what_a_process_writes_are_kept_and_all_are_read(run: Run) -> None:
    async def write() -> None:
        output, said = Output(10), Output(10)
        process = shell("yes | head -c 3000000; echo the end >&2; exit 4", output, said)
        assert await within_deadline(process.wait()) == 4
        await process.end()
        await process.end()
        assert (output.data, said.data) == (b"y\n" * 5, b"the end\n")

    run(write())


def test_a_process_that_cannot_begin_is_an_error(run: Run) -> None:
    async def begin() -> None:
        with open(os.devnull, "rb") as nothing, pytest.raises(FileNotFoundError):
            ProcessGroup("/nothing", env={}, stdin=nothing, stdout=Output(10), stderr=Output(10))

    run(begin())


def test_a_process_whose_end_cannot_be_watched_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    pids = tmp_path / "pids"

    class NoThread:
        def __init__(self, **given: Any) -> None:
            while not pids.exists():
                time.sleep(0.001)
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr("blobhub_server.process_group.Thread", NoThread)

    async def begin() -> None:
        with pytest.raises(Overloaded):
            shell(f"sleep 600 & echo $! $$ >{pids}.new; mv {pids}.new {pids}; wait", Output(10))
        await until(lambda: not any_runs(pids))

    run(begin())
