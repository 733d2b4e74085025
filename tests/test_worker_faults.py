"""Workers under fire: killed, frozen past their leases and started again at random, and the server killed in between."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import fire_worker
import flows
import grpc
import pytest
import tasks
from blobhub.v1 import execution_pb2
from calling import ask
from figures import Figure
from forked import Forked
from scale import scaled
from served import Api, ServerProcess, connected
from waiting import DEADLINE_SECONDS, until

TESTS = Path(__file__).resolve().parent
WIDTH = 10
EXECUTIONS, WORKERS, SERVER_KILLS = scaled(500, least=4), scaled(20, least=4), scaled(10, least=2)
WORKER_KILLS, FREEZES = scaled(100, least=4), scaled(50, least=3)


def wide(width: int) -> str:
    """So many tasks at once; the result is the list of what workers have said."""
    numbers = range(width)
    works = [flows.component(f"work-{number}", "task.call", queue="resize", input=number) for number in numbers]
    listed = f"[{', '.join(f'r{number}' for number in numbers)}]"
    return flows.document(
        [
            flows.component("start", "flow.start"),
            *works,
            flows.component("join", "flow.join"),
            flows.component("all", "logic.expression", expression=listed),
            flows.component("end", "flow.end"),
        ],
        [
            *(flows.control("start", f"work-{number}") for number in numbers),
            *(flows.control(f"work-{number}", "join", "success") for number in numbers),
            flows.control("join", "all"),
            *(flows.data(f"work-{number}", "result", "all", f"r{number}") for number in numbers),
            flows.control("all", "end", "success"),
            flows.data("all", "result", "end", "value"),
        ],
    )


class Fire:
    """Workers, each a process, and their server. `accepted` and `refused` have what was said of each step, by its key."""

    def __init__(self, server: ServerProcess, folder: Path, seed: int) -> None:
        self.accepted: dict[str, set[str]] = defaultdict(set)
        self.refused: dict[str, set[str]] = defaultdict(set)
        self._server = server
        self._random = random.Random(seed)
        self._where, self._answers = folder / "address", folder / "answers"
        self._answers.touch()
        self._read = 0
        self.frozen = 0
        self._workers: dict[str, Forked] = {}
        self._thawing: dict[str, asyncio.Task[None]] = {}
        self._lives = 0

    def hire(self) -> None:
        """Start one more worker."""
        self._lives += 1
        name = f"worker-{self._lives}"
        command = [fire_worker.__file__, str(self._where), self._server.admin_key, name, str(self._answers)]
        self._workers[name] = Forked(command, os.environ | {"PYTHONPATH": str(TESTS)})

    def serves(self) -> None:
        """Tell the workers where the server is."""
        new = self._where.with_suffix(".new")
        new.write_text(self._server.address)
        new.replace(self._where)

    async def kill_server(self) -> None:
        """Kill the server, and start it again."""
        self._server.kill()
        await self._server.start()
        self.serves()

    async def kill_worker(self) -> None:
        """Kill a worker, frozen or not, and start another one."""
        name = self._random.choice([*self._workers])
        self._end(name)
        self.hire()

    async def freeze(self) -> None:
        """Freeze a worker until others have been given all of its tasks; some workers are left."""
        awake = [name for name in self._workers if name not in self._thawing]
        if len(awake) > WORKERS // 2:
            name = self._random.choice(awake)
            self.frozen += 1
            self._workers[name].send_signal(signal.SIGSTOP)
            self._thawing[name] = asyncio.create_task(self._thaw(name))

    async def _thaw(self, name: str) -> None:
        while not await self._has_nothing(name):
            await asyncio.sleep(0.1)
        if name in self._workers:
            self._workers[name].send_signal(signal.SIGCONT)
        del self._thawing[name]

    async def _has_nothing(self, name: str) -> bool:
        try:
            async with connected(self._server.address, self._server.admin_key) as api:
                return name not in [task.worker for task in await tasks.listed(api, state="LEASED")]
        except grpc.aio.AioRpcError as error:
            if error.code() in fire_worker.AWAY:
                return False
            raise

    def _end(self, name: str) -> None:
        worker = self._workers.pop(name)
        worker.send_signal(signal.SIGKILL)
        worker.wait(DEADLINE_SECONDS)
        worker.stdout.close()

    async def end(self) -> None:
        """Kill all workers."""
        for task in self._thawing.values():
            task.cancel()
        await asyncio.gather(*self._thawing.values(), return_exceptions=True)
        for name in [*self._workers]:
            self._end(name)

    def read(self) -> None:
        """Read what workers have written."""
        with self._answers.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    answer = json.loads(line)
                    (self.accepted if answer["taken"] else self.refused)[answer["key"]].add(answer["lease"])

    async def until_open(self, count: int) -> None:
        """Wait until no more than so many tasks are open, as long as the workers live and get on.

        What workers have written says less: who is killed may have had an answer that they did not write down.
        """
        async with connected(self._server.address, self._server.admin_key) as api:
            while (before := await count_open(api)) > count:
                await until(lambda before=before: is_less(api, before))
                assert all(worker.poll() is None for worker in self._workers.values()), "a worker has ended by itself"


@pytest.mark.timeout(3600)
async def test_each_task_is_taken_in_once_whatever_happens_to_workers_and_server(
    tmp_path: Path, database_url: str, figure: Figure
) -> None:
    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    await server.start()
    async with connected(server.address, server.admin_key) as api:
        session = await api.session(wide(WIDTH))
    fire = Fire(server, tmp_path, seed=14)
    fire.serves()
    acts = [fire.kill_server] * SERVER_KILLS + [fire.kill_worker] * WORKER_KILLS + [fire.freeze] * FREEZES
    random.Random(14).shuffle(acts)
    begun: list[str] = []
    try:
        for _ in range(WORKERS):
            fire.hire()
        for number, act in enumerate(acts, 1):
            begun += await begin(server, session, EXECUTIONS * (number + 2) // (len(acts) + 2) - len(begun))
            await fire.until_open(len(begun) * WIDTH - EXECUTIONS * WIDTH * number // (len(acts) + 1))
            await act()
        async with connected(server.address, server.admin_key) as api:
            ended = [await tasks.ended(api, id_) for id_ in begun]
            attempts = [task.attempt for task in await tasks.listed(api)]
    finally:
        await fire.end()
        server.kill()
    fire.read()
    check(fire, ended)
    late = sum(map(len, fire.refused.values()))
    figure(
        f"{EXECUTIONS * WIDTH} tasks, {WORKERS} workers: {WORKER_KILLS} killed and {fire.frozen} frozen, the server killed "
        f"{SERVER_KILLS} times; {late} late answers refused, at most {max(attempts)} attempts"
    )


async def count_open(api: Api) -> int:
    """How many tasks have not ended."""
    queue = await tasks.queue(api)
    return queue.waiting_tasks + queue.leased_tasks


async def is_less(api: Api, before: int) -> bool:
    return await count_open(api) < before


async def begin(server: ServerProcess, session: str, count: int) -> list[str]:
    """Start so many executions. They are started as it goes, so that what is lost soon comes to others."""
    async with connected(server.address, server.admin_key) as api:
        spec = {"definition": "workflow"}
        return [(await ask(api, "StartExecution", session=session, spec=spec)).execution.id for _ in range(count)]


def check(fire: Fire, ended: Sequence[execution_pb2.Execution]) -> None:
    """Each execution has the answers that were taken in, and no other."""
    for execution in ended:
        assert execution.state == execution_pb2.EXECUTION_STATE_COMPLETED, execution.failure
        taken = set(tasks.json_of(execution))
        assert len(taken) == WIDTH
        own = {key: leases for key, leases in fire.accepted.items() if key.startswith(execution.id)}
        assert set().union(*own.values()) <= taken, "what was acknowledged is what counts"
        assert all(len(leases) == 1 for leases in own.values())
        refused = (leases for key, leases in fire.refused.items() if key.startswith(execution.id))
        assert not set().union(*refused) & taken, "what was refused does not count"
