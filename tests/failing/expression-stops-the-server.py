"""One expression, evaluated in place, held the whole server: nobody else was answered until it was done, timeout or not.

Prints how long a GetCaller of somebody else took meanwhile. The work is the square of SIZE, the elements of the input list.
"""

import asyncio
import os
import time

from blobhub.v1 import caller_pb2
from small import ADDRESS, KEY, Place, comp, connect, ctl, data, doc, val

SIZE = int(os.environ.get("SIZE", "3000"))
DOCUMENT = doc(
    [
        comp("start", "flow.start"),
        val("n", "numbers"),
        comp("work", "logic.expression", policy={"timeout": "1s"}, expression="len([[x * y for y in n] for x in n])"),
        comp("end", "flow.end"),
    ],
    [
        ctl("start", "work"),
        data("n", "value", "work", "n"),
        ctl("work", "end", "success"),
        data("work", "result", "end", "value"),
    ],
)


async def main():
    async with connect(ADDRESS, KEY) as hub, connect(ADDRESS, KEY) as other:
        place = await Place(hub).make()
        await place.put(DOCUMENT)
        session = await place.session()
        method = next(m for m in dir(other.callers) if m.startswith("Get"))
        request = getattr(caller_pb2, f"{method}Request")()
        await getattr(other.callers, method)(request)
        begun = time.monotonic()
        running = asyncio.create_task(place.run(session, {"numbers": list(range(SIZE))}, timeout=120))
        longest = 0.0
        while not running.done():
            at = time.monotonic()
            await getattr(other.callers, method)(request)
            longest = max(longest, time.monotonic() - at)
            await asyncio.sleep(0.05)
        _, ended = await running
        print(
            f"execution: {time.monotonic() - begun:.1f} s, state {ended.state} {ended.failure.message[:100]}; "
            f"somebody else's {method} took up to {longest:.1f} s"
        )


asyncio.run(main())
