"""Changes that grow with the data hold the event loop for moments: measured in CPU of its thread, so on any machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import acme
import flows
import pytest
from calling import ask, outcome
from databases import collected, select
from exact import passing
from figures import Figure
from meter import MeteredServer, Reading, hold_the_bound
from multiplied import lengthen_log, multiply_blob
from scale import scaled
from served import Api, connected

BLOBS = scaled(5_000, least=500)
EVENTS = scaled(100_000, least=5_000)
LARGE = scaled(60, least=20)
IN_BLOBS = ("blobs", "revisions", "entries", "blob_events", "sessions", "executions", "events")


async def with_many_blobs(api: Api, url: str) -> None:
    """An organization with many blobs, in each a session with an execution and its log."""
    await ask(api, "RunExecution", session=await api.session(flows.steps(2)), spec={"definition": "workflow"})
    await multiply_blob(url, (await acme.get_blob(api)).id, BLOBS)


async def with_a_long_log(api: Api, url: str) -> None:
    """A blob with a session that has a long log."""
    session = await api.session(flows.steps(2))
    await ask(api, "RunExecution", session=session, spec={"definition": "workflow"})
    await lengthen_log(url, session, EVENTS, rarely=10, rare_type="processor.waiting")


async def with_large_values(api: Api, url: str) -> None:
    """A blob with a session whose log, results and objects have a mebibyte each."""
    session = await api.session(passing())
    large = {"value_json": json.dumps("x" * 1_040_000)}
    for number in range(LARGE):
        await ask(api, "PutSessionObject", session=session, alias=f"large-{number}", **large)
        spec = {"definition": "workflow", "input_data": [{"alias": "given", **large}]}
        await ask(api, "RunExecution", session=session, spec=spec)


async def measure_cascade(
    server: MeteredServer, api: Api, url: str, fill: Callable[[Api, str], Awaitable[None]], figure: Figure
) -> Reading:
    """Fill the organization anew and delete it with all that is in it, while another caller reads."""
    await fill(api, url)
    server.reset()
    deleting = asyncio.create_task(acme.delete_organization(api, cascade=True))
    calls = await read_until(api, deleting)
    await deleting
    await collected(url)
    reading = server.read()
    figure(f"worst callback {reading.worst_ms:.1f} ms of CPU, {calls} calls answered meanwhile")
    return reading


async def read_until(api: Api, ended: asyncio.Task[None]) -> int:
    """Read again and again, until something has ended; how often."""
    calls = 0
    while not ended.done():
        await acme.get_blob(api, "other/blob")
        calls += 1
    return calls


@pytest.mark.parametrize("fill", [with_many_blobs, with_a_long_log, with_large_values])
async def test_a_cascade_holds_the_event_loop_for_moments_and_removes_everything(
    tmp_path: Path, database_url: str, fill: Callable[[Api, str], Awaitable[None]], figure: Figure
) -> None:
    server = MeteredServer(tmp_path / "data", database_url)
    async with server.running(), connected(server.address, server.admin_key) as api:
        await acme.organization(api, "other")
        await acme.blob(api, "other/blob")
        await acme.organization(api, "small")
        await acme.blob(api, "small/blob")
        await acme.delete_organization(api, "small", cascade=True)
        await hold_the_bound(partial(measure_cascade, server, api, database_url, fill, figure))
        assert await outcome(acme.get_blob(api)) == "NOT_FOUND"
    for table in IN_BLOBS:
        ((left,),) = await select(database_url, f"SELECT count(*) FROM {table}")
        assert left == (1 if table in ("blobs", "revisions", "blob_events") else 0), table
