"""A session whose events are of ordinary size (here 9 KiB each, 600 of them) could not be watched from its beginning.

A batch that is cut at 512 events alone, not at the 4 MiB of a message, is too large however often a client resumes.
ListExecutions had the same fault with results. Right is: every line says `all` or `fine`.
"""

import asyncio

import grpc
from blobhub.v1 import execution_pb2, session_pb2
from small import ADDRESS, KEY, Place, comp, connect, ctl, data, doc, reason, val

TALK = doc(
    [
        comp("start", "flow.start"),
        comp("talk", "logic.code", code="for i in range(300):\n    emit_output('y' * 9216)"),
        comp("end", "flow.end"),
    ],
    [ctl("start", "talk"), ctl("talk", "end", "success")],
)
SAME = doc(
    [comp("start", "flow.start"), val("t", "t"), comp("same", "logic.expression", expression="t"), comp("end", "flow.end")],
    [
        ctl("start", "same"),
        data("t", "value", "same", "t"),
        ctl("same", "end", "success"),
        data("same", "result", "end", "value"),
    ],
)


async def main():
    async with connect(ADDRESS, KEY) as hub:
        place = await Place(hub).make()
        await place.put(TALK)
        await place.put(SAME, "same_text")
        session = await place.session()
        for _ in range(2):
            try:
                await place.run(session)
            except grpc.aio.AioRpcError as error:
                print("run:", error.code().name, error.details())
        await asyncio.sleep(1)
        seen = 0
        try:
            async for message in hub.sessions.WatchSession(
                session_pb2.WatchSessionRequest(session=session, replay_only=True)
            ):
                seen += len(message.events)
            print("watch: all", seen)
        except grpc.aio.AioRpcError as error:
            print(f"watch: {seen} events, then", error.code().name, reason(error) or "(no reason)", error.details())
        try:
            async with asyncio.timeout(5):
                async for _ in hub.watch_session(session, replay_only=True):
                    pass
            print("client: all")
        except TimeoutError:
            print("client's watch_session: does not return")
        other = await place.session()
        for _ in range(5):
            await place.run(other, {"t": "x" * 900_000}, alias="same_text")
        try:
            await hub.executions.ListExecutions(execution_pb2.ListExecutionsRequest(blob=place.blob, session=other))
            print("list: fine")
        except grpc.aio.AioRpcError as error:
            print("list of 5 executions:", error.code().name, error.details())
        try:
            await place.run(other, {"t": "x" * 1_040_000}, alias="same_text")
            print("run with 1 MiB input: fine")
        except grpc.aio.AioRpcError as error:
            print("run:", error.code().name, error.details())


asyncio.run(main())
