"""An honest client beside hostile ones, in a process of its own: `python honest.py ADDRESS KEY`.

It asks for its blob again and again, and runs its workflow now and then, until its standard input ends. It prints that it
has begun when it has made each call once; and in the end when it asked for its blob, by `time.monotonic`, how long each
answer took in milliseconds, and what failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import flows
from blobhub.v1 import blob_pb2, execution_pb2
from served import Api, connected

PAUSE_SECONDS = 0.005
CALLS_BETWEEN_RUNS = 100
ANSWER_SECONDS = 60
BEGUN = b"begun\n"


@dataclass(slots=True)
class Report:
    """What came of an honest client's calls."""

    calls: list[tuple[float, float]] = field(default_factory=list)
    runs: int = 0
    failures: list[str] = field(default_factory=list)

    def p99_ms(self, begin_time: float, end_time: float) -> float:
        """What 99 of 100 calls of that time took at most."""
        taken = sorted(took for at, took in self.calls if begin_time <= at < end_time)
        assert taken, "no call was made"
        return taken[len(taken) * 99 // 100]


class Honest:
    """The running client."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def end(self) -> Report:
        """Have it end; what came of its calls."""
        printed, _ = await self._process.communicate(b"")  # With nothing to write, it would leave the input open.
        return Report(**json.loads(printed))


@asynccontextmanager
async def honestly(address: str, key: str) -> AsyncIterator[Honest]:
    """An honest client, which has begun."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, address, key, stdin=PIPE, stdout=PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == BEGUN
        yield Honest(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def call_honestly(api: Api, ended: asyncio.Event) -> Report:
    """Make calls until it has ended."""
    session_id = await api.session(flows.steps(3), organization="honest")
    run = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
    report, number = Report(), 0
    while not ended.is_set():
        begin_time = time.monotonic()
        try:
            if number % CALLS_BETWEEN_RUNS == 0:
                last = [message async for message in api.executions.RunExecution(run, timeout=ANSWER_SECONDS)][-1]
                assert last.execution.result.number_value == 3, last.execution
                report.runs += 1
            else:
                await api.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="honest/pipeline"), timeout=ANSWER_SECONDS)
                report.calls.append((begin_time, (time.monotonic() - begin_time) * 1000))
        except Exception as error:
            report.failures.append(str(error))
        if number == CALLS_BETWEEN_RUNS:
            print(BEGUN.decode(), end="", flush=True)
        number += 1
        await asyncio.sleep(PAUSE_SECONDS)
    return report


async def main(address: str, key: str) -> None:
    ended = asyncio.Event()
    async with connected(address, key) as api:
        calling = asyncio.ensure_future(call_honestly(api, ended))
        await asyncio.to_thread(sys.stdin.read)
        ended.set()
        report = await calling
    print(json.dumps({"calls": report.calls, "runs": report.runs, "failures": report.failures}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    asyncio.run(main(*sys.argv[1:]))
