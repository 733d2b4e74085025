"""The lane of long reads is full: who is refused, who waits, and who does not take it at all."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import flows
import grpc
import pytest
import sqlalchemy as sa
from blobhub.v1 import caller_pb2, execution_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.db.engine import Database
from blobhub_server.db.lane import CALL_READS, MAX_WAITING, PATIENT_READS
from blobhub_server.db.opening import open_database
from blobhub_server.errors import Overloaded
from blobhub_server.turnstile import Party
from calling import ask
from google.rpc import error_details_pb2
from several_servers import started, together
from waiting import until, within_deadline

LOUD, QUIET = ("acme", "loud"), ("acme", "quiet")


async def one(db: Database, *, party: Party = LOUD, patient: bool = False) -> int:
    async with db.scan(party, patient=patient) as tx:
        return (await tx.execute(sa.text("SELECT 1"))).scalar_one()


async def fill(db: Database, stack: AsyncExitStack, party: Party = LOUD) -> list[asyncio.Task[int]]:
    """Take all turns of calls until the stack is left, and have as many reads wait as may."""
    for _ in range(CALL_READS):
        await stack.enter_async_context(db.scan(LOUD))
    waiting = [asyncio.create_task(one(db, party=party)) for _ in range(MAX_WAITING)]
    await until(lambda: db._lane.calls.waiting >= MAX_WAITING)
    return waiting


async def test_a_long_read_is_refused_where_many_wait_and_those_who_wait_get_their_turn(database_url: str) -> None:
    db = await open_database(database_url)
    async with AsyncExitStack() as stack:
        waiting = await fill(db, stack)
        with pytest.raises(Overloaded):
            await one(db)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        waiting[0] = asyncio.create_task(one(db))
        await until(lambda: db._lane.calls.waiting == MAX_WAITING)
    assert await within_deadline(asyncio.gather(*waiting)) == [1] * MAX_WAITING
    assert await one(db) == 1
    await db.close()


async def test_of_many_reads_of_one_caller_the_last_is_refused_in_favour_of_another(database_url: str) -> None:
    db = await open_database(database_url)
    async with AsyncExitStack() as stack:
        waiting = await fill(db, stack)
        quiet = asyncio.create_task(one(db, party=QUIET))
        await asyncio.wait(waiting[-1:])
        assert isinstance(waiting[-1].exception(), Overloaded)
        assert sum(read.done() for read in waiting) == 1
    assert await within_deadline(asyncio.gather(quiet, *waiting[:-1])) == [1] * MAX_WAITING
    await db.close()


async def test_streams_and_recovery_read_while_all_turns_of_calls_are_taken(database_url: str) -> None:
    db = await open_database(database_url)
    async with AsyncExitStack() as stack:
        waiting = await fill(db, stack)
        reads = [one(db, patient=True) for _ in range(4 * PATIENT_READS)]
        assert await within_deadline(asyncio.gather(*reads)) == [1] * len(reads)
        assert not any(read.done() for read in waiting)
    await within_deadline(asyncio.gather(*waiting))
    await db.close()


async def test_an_execution_is_stopped_while_lists_are_refused_and_the_storage_is_in_no_trouble(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),), AsyncExitStack() as stack:
        db = opened.host.db
        session_id = await api.session(flows.delay(600))
        execution_id = await started(api, session_id)
        reported: list[Exception] = []
        monkeypatch.setattr(db.trouble, "report", reported.append)
        session = await api.callers.GetCaller(caller_pb2.GetCallerRequest())
        party = (session.caller.user_id, session.caller.user_id)
        waiting = await fill(db, stack, party)
        again = error_details_pb2.RetryInfo()
        listing = ask(api, "ListExecutions", blob="acme/pipeline")
        error = await expect_refusal(listing, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert unpack(error, again)
        assert again.retry_delay.seconds == 1
        await api.executions.StopExecution(execution_pb2.StopExecutionRequest(execution=execution_id))

        async def has_ended() -> bool:
            return (await ask(api, "GetExecution", execution=execution_id)).execution.HasField("end_time")

        await until(has_ended)
        assert reported == []
        for read in waiting:  # or they would connect while the server closes
            read.cancel()
        await within_deadline(asyncio.wait(waiting))
