"""Twenty executions are under way; the database ends every connection for three seconds, as in a failover.

DATABASE_URL is the server's own; connections to it are ended with pg_terminate_backend, so give a database of your own.
"""

import asyncio
import collections
import itertools
import os
import time

import asyncpg
import grpc
from blobhub.v1 import execution_pb2
from small import ADDRESS, KEY, Place, comp, connect, ctl, doc

NAMES = [f"c{i}" for i in range(12)]
DOCUMENT = doc(
    [comp("start", "flow.start"), comp("end", "flow.end")]
    + [comp(n, "logic.code", code="x = 1") for n in NAMES]
    + [comp(f"w{n}", "flow.delay", seconds=0.15) for n in NAMES],
    [ctl("start", "c0"), ctl("wc11", "end")]
    + [ctl(n, f"w{n}", "success") for n in NAMES]
    + [ctl(f"w{a}", b) for a, b in itertools.pairwise(NAMES)],
)
END = """select count(pg_terminate_backend(pid)) from pg_stat_activity
         where pid <> pg_backend_pid() and backend_type = 'client backend'"""


async def main():
    async with connect(ADDRESS, KEY) as hub:
        place = await Place(hub).make()
        await place.put(DOCUMENT)
        session = await place.session()
        request = execution_pb2.StartExecutionRequest(session=session, spec={"definition": "workflow"})
        for _ in range(20):
            await hub.executions.StartExecution(request)
        await asyncio.sleep(0.5)
        beside = await asyncpg.connect(os.environ["DATABASE_URL"])
        begun = time.monotonic()
        while time.monotonic() - begun < 3:
            await beside.fetchval(END)
            await asyncio.sleep(0.05)
        await beside.close()
        for _ in range(40):
            await asyncio.sleep(0.5)
            try:
                listed = await hub.executions.ListExecutions(
                    execution_pb2.ListExecutionsRequest(blob=place.blob, session=session)
                )
            except grpc.aio.AioRpcError:
                continue
            if all(execution.state >= 5 for execution in listed.executions):
                break
        print(collections.Counter((e.state, e.failure.reason, e.failure.message) for e in listed.executions))


asyncio.run(main())
