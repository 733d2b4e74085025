"""BlobHub and the yardsticks in one process, on two ports; prints `address bare-address key`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
import uvloop
from bare import Committer, handlers
from blobhub_server import memory
from blobhub_server.app import running
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.config import Settings


async def main(data_dir: Path) -> None:
    settings = Settings(listen="127.0.0.1:0", http_listen="127.0.0.1:0", data_dir=data_dir, log_level="warning")
    async with running(settings, BlobTypes.load()) as server:
        bare = grpc.aio.server()
        bare.add_generic_rpc_handlers((handlers(Committer(data_dir / "bare.db"), data_dir / "bare.bin"),))
        port = bare.add_insecure_port("127.0.0.1:0")
        await bare.start()
        print(server.address, f"127.0.0.1:{port}", server.admin_key, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await bare.stop(0)


if __name__ == "__main__":
    memory.tune_allocator()  # as the server's own command does
    uvloop.run(main(Path(sys.argv[1])))
