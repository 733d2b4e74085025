"""A server with the yardsticks in its process, started from here."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from served import Api, connected

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Serving:
    """A client of a server, and a channel to the yardsticks; where both are."""

    api: Api
    bare: grpc.aio.Channel
    address: str
    bare_address: str


@asynccontextmanager
async def serving(data_dir: Path, **settings: str) -> AsyncIterator[Serving]:
    """A server with these settings, and the yardsticks."""
    data_dir.mkdir(parents=True)
    command = [sys.executable, str(HERE / "serve.py"), str(data_dir)]
    environment = os.environ | {f"BLOBHUB_{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address, bare_address, key = (await asyncio.to_thread(process.stdout.readline)).split()
        async with connected(address, key) as api, grpc.aio.insecure_channel(bare_address) as bare:
            yield Serving(api=api, bare=bare, address=address, bare_address=bare_address)
    finally:
        await asyncio.to_thread(process.communicate, "")
