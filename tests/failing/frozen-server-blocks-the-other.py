"""Two servers on one PostgreSQL. One is frozen in a transaction, as a paused machine is; a change on the other waits.

Tries up to 40 moments; each try that does not hit one costs a few milliseconds. ADDRESS and OTHER are the two servers, and
FREEZE is the process id of the first.
"""

import asyncio
import os
import signal
import time

import grpc
from blobhub.v1 import blob_pb2, execution_pb2
from small import ADDRESS, KEY, Place, comp, connect, ctl, doc

OTHER, FREEZE = os.environ["OTHER"], int(os.environ["FREEZE"])
DOCUMENT = doc([comp("start", "flow.start"), comp("end", "flow.end")], [ctl("start", "end")])


async def main():
    async with connect(ADDRESS, KEY) as a, connect(OTHER, KEY) as b:
        place = await Place(a).make()
        await place.put(DOCUMENT)
        request = execution_pb2.StartExecutionRequest(session=await place.session(), spec={"definition": "workflow"})
        over = False

        async def load():
            while not over:
                try:
                    await a.executions.StartExecution(request, timeout=30)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.2)

        loads = [asyncio.create_task(load()) for _ in range(32)]
        await asyncio.sleep(1.5)
        for number in range(40):
            begun = time.monotonic()
            os.kill(FREEZE, signal.SIGSTOP)
            try:
                change = blob_pb2.UpdateBlobRequest(blob=place.blob, description=f"try {number}")
                await b.blobs.UpdateBlob(change, timeout=12)
            except grpc.aio.AioRpcError as error:
                print(
                    f"try {number}: a change on the other server: {error.code().name} after {time.monotonic() - begun:.0f} s"
                )
                break
            finally:
                os.kill(FREEZE, signal.SIGCONT)
            await asyncio.sleep(0.05 + number * 37 % 17 / 100)
        else:
            print("not hit")
        over = True
        await asyncio.gather(*loads)


asyncio.run(main())
