"""The meter of the event loop sees every callback, whoever has called for it, and says where it was."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest
from blobhub.v1 import caller_pb2
from meter import BOUND_MS, Meter, MeteredServer
from served import connected

BUSY_MS = 2 * BOUND_MS


def be_busy() -> None:
    until = time.thread_time() + BUSY_MS / 1000
    while time.thread_time() < until:
        pass


async def step() -> None:
    await asyncio.sleep(0)
    be_busy()
    await asyncio.sleep(0)


async def as_task() -> None:
    await asyncio.create_task(step())


async def as_callback() -> None:
    loop, ran = asyncio.get_running_loop(), asyncio.Event()
    loop.call_soon(be_busy)
    loop.call_soon(ran.set)
    await ran.wait()


async def as_timer() -> None:
    loop, ran = asyncio.get_running_loop(), asyncio.Event()
    loop.call_later(0.001, lambda: (be_busy(), ran.set()))
    await ran.wait()


async def as_reader() -> None:
    loop, ran = asyncio.get_running_loop(), asyncio.Event()
    reading, writing = socket.socketpair()
    with reading, writing:
        loop.add_reader(reading, lambda: (be_busy(), loop.remove_reader(reading), ran.set()))
        writing.send(b"x")
        await ran.wait()


async def from_a_thread() -> None:
    loop, ran = asyncio.get_running_loop(), asyncio.Event()
    await asyncio.to_thread(loop.call_soon_threadsafe, lambda: (be_busy(), ran.set()))
    await ran.wait()


@pytest.mark.parametrize("busily", [as_task, as_callback, as_timer, as_reader, from_a_thread])
async def test_a_callback_that_works_long_is_seen_with_its_place(busily) -> None:
    with Meter().installed() as meter:
        await busily()
        reading = meter.read()
    (callback,) = reading.beyond()
    assert callback.cpu_ms >= BUSY_MS
    assert any("be_busy" in place for place in callback.stack)


async def test_waiting_and_the_work_of_other_threads_are_no_callbacks_cpu() -> None:
    with Meter().installed() as meter:
        await asyncio.to_thread(be_busy)
        time.sleep(BUSY_MS / 1000)
        await asyncio.sleep(BUSY_MS / 1000)
        assert meter.read().beyond() == []


async def test_a_metered_server_tells_of_its_callbacks_and_of_its_memory(tmp_path: Path) -> None:
    server = MeteredServer(tmp_path / "data")
    async with server.running(), connected(server.address, server.admin_key) as api:
        server.reset()
        for _ in range(10):
            await api.callers.GetCaller(caller_pb2.GetCallerRequest())
        assert server.read().count >= 10
        assert server.reset().count >= 10
        assert 0 < server.memory_bytes <= server.peak_bytes
        assert server.stop() == 0
