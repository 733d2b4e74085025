"""Workflows that real people run, with work for each of many items and with loops: they end as they should."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import runs
import tasks
from blobhub.v1 import execution_pb2, task_pb2
from blobhub_client import get_value
from calling import ask
from scale import scaled
from served import Api, connected, served
from waiting import until
from web import Answer, Asked, said, web

WORKFLOWS = Path(__file__).parent / "workflows"
CONCURRENCY = 50


def workflow(name: str) -> str:
    return (WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")


async def fan_out(api: Api, count: int) -> execution_pb2.Execution:
    session = await api.session(workflow("fan_out"))
    spec = {"definition": "workflow", "input_data": [{"alias": "count", "value_json": json.dumps(count)}]}
    return (await ask(api, "StartExecution", session=session, spec=spec)).execution


async def test_workers_do_each_item_of_a_list_fifty_at_once_and_results_are_in_its_order(api: Api) -> None:
    count, chance, lost = scaled(500, least=60), random.Random(5), (3, 55)
    begun = await fan_out(api, count)
    async with tasks.leasing(api, maximum_tasks=CONCURRENCY + 10, seconds=600) as leases:
        held = [await leases.next() for _ in range(CONCURRENCY)]
        assert (await tasks.queue(api)).waiting_tasks == 0
        left = count - CONCURRENCY
        while held:
            done = held.pop(chance.randrange(len(held)))
            given = get_value(done, "input")
            if given["index"] in lost:
                await tasks.fail(api, done.lease)
            else:
                await tasks.complete(api, done.lease, given["item"] + 1)
            if left:
                held.append(await leases.next())
                left -= 1
    result = tasks.json_of(await tasks.ended(api, begun.id))
    assert result == [None if index in lost else index * 10 + 1 for index in range(count)]


@pytest.mark.either_database
async def test_a_third_item_that_fails_fails_all_and_the_tasks_of_the_others_are_over(api: Api) -> None:
    begun = await fan_out(api, 60)
    async with tasks.leasing(api, maximum_tasks=CONCURRENCY + 10, seconds=600) as leases:
        held = [await leases.next() for _ in range(CONCURRENCY)]
        for leased in held[7:10]:
            await tasks.fail(api, leased.lease)
        ended = await tasks.ended(api, begun.id)
        assert ended.failure.reason == "BROKEN"

        async def over() -> bool:
            states = [task.state for task in await tasks.listed(api)]
            failed, cancelled = map(states.count, (task_pb2.TASK_STATE_FAILED, task_pb2.TASK_STATE_CANCELLED))
            return (failed, cancelled, len(states)) == (3, CONCURRENCY - 1, CONCURRENCY + 2)

        await until(over)


class Jobs:
    """A service that works on jobs, which answers badly now and then."""

    def __init__(self, end: dict[str, str]) -> None:
        self._end = end
        self._asked = 0

    def respond(self, asked: Asked) -> Answer:
        self._asked += 1
        if self._asked % 3 == 2:
            return said("busy", status=503)
        if asked.method == "POST":
            return said('{"id": "seven"}', type_="application/json")
        assert asked.path == "/jobs/seven"
        made = self._end if self._asked > 8 else {"status": "running"}
        return said(json.dumps(made), type_="application/json")


DONE, FAILED = {"status": "done", "result": "42"}, {"status": "failed", "code": "NO_PAPER", "cause": "out of paper"}


@pytest.mark.parametrize(("end", "expected"), [(DONE, ("42", "")), (FAILED, (None, "NO_PAPER"))])
async def test_a_job_is_asked_after_until_it_is_done_or_failed(
    tmp_path: Path, database_url: str, end: dict[str, str], expected: tuple[str | None, str]
) -> None:
    async with web(Jobs(end).respond) as other:
        allowed = f"127.0.0.1:{other.port}"
        async with served(tmp_path, database_url, http_allow=allowed) as hub, connected(hub.address, hub.admin_key) as api:
            session = await api.session(workflow("job_poller"))
            ended = await runs.run(api, session, url=other.url, seconds=0.01)
            assert (get_value(ended, "result") if ended.HasField("result") else None, ended.failure.reason) == expected
            other.respond = lambda asked: said("no", status=404)
            asked = len(other.asked)
            ended = await runs.run(api, session, url=other.url, seconds=0.01)
            assert (ended.failure.reason, len(other.asked)) == ("HTTP_STATUS", asked + 1)
