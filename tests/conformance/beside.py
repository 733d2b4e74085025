"""Uses the Python clients in an environment of their own, beside what else is installed there; prints protobuf's version.

`python beside.py ADDRESS`, with the key in `CONFORMANCE_KEY`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.metadata import version
from importlib.util import find_spec

from blobhub.v1.caller_pb2 import GetCallerRequest
from blobhub_client import connect, sync


async def main(address: str, key: str) -> None:
    async with connect(address, key) as hub:
        first = await hub.callers.GetCaller(GetCallerRequest())
    with sync.connect(address, key) as hub:
        assert hub.callers.GetCaller(GetCallerRequest()) == first
    if find_spec("tritonclient"):
        from tritonclient import grpc as triton  # noqa: PLC0415  it is not in every environment

        assert triton.InferenceServerClient(address).is_server_live()
    print(version("protobuf"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], os.environ["CONFORMANCE_KEY"]))
