"""What the server starts beside itself has nothing of gRPC in it, not even before it is the program that it is to be."""

from __future__ import annotations

import os
import select
import subprocess
import sys

from forked import Forked
from waiting import DEADLINE_SECONDS

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


class Fatal(str):
    """A text that ends the process that unpacks it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)


def test_a_forked_process_that_dies_before_it_runs_ends_what_it_would_have_printed() -> None:
    """Whoever waited for a line of it waited for ever: what it was to print on was open here, and nobody was to take it."""
    forked = Forked([Fatal()], os.environ)
    with forked.stdout:
        ready, _, _ = select.select([forked.stdout], [], [], DEADLINE_SECONDS)
        assert ready
        assert forked.stdout.read() == ""
    assert forked.wait(DEADLINE_SECONDS) == 3
