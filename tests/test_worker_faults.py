"""Workers under fire: killed, frozen past their leases and started again at random, and the server killed in between."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import flows
import grpc
import pytest
import tasks
from blobhub.v1 import execution_pb2, task_pb2
from blobhub_server.blobtypes.conformance import reason_of
from calling import ask
from figures import Figure
from scale import scaled
from served import Api, ServerProcess, connected
from waiting import until

WIDTH = 10
EXECUTIONS, WORKERS, KILLS = scaled(500, least=4), scaled(20, least=4), scaled(10, least=2)
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
LEASE_SECONDS, FROZEN_SECONDS = 1, 1.5


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
    """Workers of a server that is killed. `accepted` and `refused` have what was said of each step, by its key."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self.accepted: dict[str, set[str]] = defaultdict(set)
        self.refused: dict[str, set[str]] = defaultdict(set)
        self.killed = self.frozen = self.said = 0
        self._server = server
        self._random = random.Random(seed)

    async def work(self, name: str) -> None:
        """Be one worker after the other, for ever."""
        life = 0
        while True:
            life += 1
            try:
                async with connected(self._server.address, self._server.admin_key) as api:
                    await self._live(api, f"{name}-{life}")
            except EOFError:
                continue
            except grpc.aio.AioRpcError as error:
                if error.code() not in AWAY:
                    raise
            await asyncio.sleep(0.02)

    async def _live(self, api: Api, name: str) -> None:
        """Work until killed: then the connection is gone, and what was leased is held by nobody."""
        async with tasks.leasing(api, worker=name, maximum_tasks=4, seconds=LEASE_SECONDS) as leases:
            while True:
                leased, fate = await leases.next(), self._random.random()
                if fate < 0.02:
                    self.killed += 1
                    return
                if fate < 0.04:
                    self.frozen += 1
                    await asyncio.sleep(FROZEN_SECONDS)
                await self._say(api, leased)

    async def _say(self, api: Api, leased: task_pb2.LeasedTask) -> None:
        """Say that a task is done: the result is the lease, of which there is no other."""
        self.said += 1
        key = leased.idempotency_key
        try:
            await tasks.complete(api, leased.lease, leased.lease)
        except grpc.aio.AioRpcError as error:
            if error.code() in AWAY or reason_of(error) != "LEASE_LOST":
                raise
            self.refused[key].add(leased.lease)
        else:
            self.accepted[key].add(leased.lease)


@pytest.mark.timeout(3600)
async def test_each_task_is_taken_in_once_whatever_happens_to_workers_and_server(
    tmp_path: Path, database_url: str, figure: Figure
) -> None:
    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    await server.start()
    fire = Fire(server, seed=14)
    async with connected(server.address, server.admin_key) as api:
        session = await api.session(wide(WIDTH))
        spec = {"definition": "workflow"}
        begun = [(await ask(api, "StartExecution", session=session, spec=spec)).execution.id for _ in range(EXECUTIONS)]
    workers = [asyncio.create_task(fire.work(f"worker-{number}")) for number in range(WORKERS)]
    total = EXECUTIONS * WIDTH
    try:
        for kill in range(1, KILLS + 1):
            await until_said(fire, total * kill // (KILLS + 1), workers)
            server.kill()
            await server.start()
        async with connected(server.address, server.admin_key) as api:
            ended = [await tasks.ended(api, id_) for id_ in begun]
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        server.kill()
    check(fire, ended)
    figure(
        f"{total} tasks, {WORKERS} workers, {KILLS} kills of the server: workers killed {fire.killed} times and frozen "
        f"{fire.frozen} times, {fire.said} answers, {sum(map(len, fire.refused.values()))} late ones refused"
    )


async def until_said(fire: Fire, count: int, workers: Sequence[asyncio.Task[None]]) -> None:
    """Wait until so many steps have an answer that was taken in, as long as the workers live and get on."""
    while len(fire.accepted) < count:
        before = len(fire.accepted)
        await until(lambda before=before: len(fire.accepted) > before or any(worker.done() for worker in workers))
        for worker in workers:
            if worker.done():
                worker.result()


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
