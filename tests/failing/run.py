"""Puts, checks and runs a definition in a session of its own, and reads back what it left.

`python run.py FILE.json [alias=JSON …]`
A `.jsonl` holds cases of {case, document}: each is checked and put.
"""

import asyncio
import json
import sys
from pathlib import Path

import grpc
from blobhub.v1 import definition_pb2, execution_pb2, session_object_pb2, session_pb2
from google.protobuf import json_format
from small import ADDRESS, KEY, Place, connect, reason


async def told(name, work):
    try:
        print(f"{name}: {await asyncio.wait_for(work, 60)}")
    except grpc.aio.AioRpcError as error:
        print(f"{name}: {error.code().name} {reason(error)} {error.details()[:150]}")
    except Exception as error:
        print(f"{name}: in the client, {error!r}")


async def main(path, inputs):
    text = Path(path).read_text(encoding="utf-8")
    async with connect(ADDRESS, KEY) as hub:
        place = await Place(hub).make()

        async def check(document):
            answer = await place.check(document)
            return f"runnable {answer.runnable} {[problem.message for problem in answer.problems][:3]}"

        async def put(document):
            return "stored" if await place.put(document) else ""

        if path.endswith(".jsonl"):
            for line in text.splitlines():
                case = json.loads(line)
                await told(f"{case['case']}: check", check(case["document"]))
                await told(f"{case['case']}: put", put(case["document"]))
            return
        session = await place.session()

        async def get():
            request = definition_pb2.GetDefinitionRequest(definition=f"{place.draft}/workflow")
            return f"{len((await hub.definitions.GetDefinition(request)).document)} characters"

        async def run():
            events, ended = await place.run(session, inputs)
            result = json_format.MessageToJson(ended.result, indent=None) if ended.HasField("result") else "none"
            entered = [e.processor.processor_id for e in events if e.type == "processor.entered"]
            failure = f"{ended.failure.reason} {ended.failure.message[:120]}"
            return f"state {ended.state} {failure} result {result[:120]} entered {entered}"

        async def watch():
            request = session_pb2.WatchSessionRequest(session=session, replay_only=True)
            return sum([len(message.events) async for message in hub.sessions.WatchSession(request)])

        async def listed():
            answer = await hub.executions.ListExecutions(
                execution_pb2.ListExecutionsRequest(blob=place.blob, session=session)
            )
            return [(execution.state, execution.failure.reason) for execution in answer.executions]

        async def objects():
            answer = await hub.session_objects.ListSessionObjects(
                session_object_pb2.ListSessionObjectsRequest(session=session)
            )
            for item in answer.session_objects:
                request = session_object_pb2.GetSessionObjectRequest(session=session, alias=item.alias)
                await told(f"  object {item.alias[:12]!r}", hub.session_objects.GetSessionObject(request))
            return len(answer.session_objects)

        for name, work in (
            ("check", check(text)),
            ("put", put(text)),
            ("get", get()),
            ("run", run()),
            ("watch", watch()),
            ("list", listed()),
            ("objects", objects()),
        ):
            await told(name, work)


asyncio.run(
    main(sys.argv[1], {name: json.loads(value) for name, _, value in (item.partition("=") for item in sys.argv[2:])})
)
