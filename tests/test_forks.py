"""What the server starts beside itself has nothing of gRPC in it, not even before it is the program that it is to be."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, os, time
from blobhub_server import app
import grpc

async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        pid = os.fork()
        if not pid:
            time.sleep(0.5)
            os._exit(len(os.listdir("/proc/self/task")))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    await server.stop(0)

asyncio.run(main())
"""


def test_a_copy_of_the_server_has_none_of_its_threads() -> None:
    """It had five of gRPC's, one of which crashed in one of some dozen processes that were started beside calls."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1"]
