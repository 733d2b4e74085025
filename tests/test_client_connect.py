"""The Python client does not wait for ever for a server that is not there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2
from blobhub_client import Client, Unreachable, connect
from certificates import Authority
from served import Api, ServerProcess, served
from waiting import DEADLINE_SECONDS, until, within_deadline

WAYS: dict[str, Callable[[Client], AsyncIterator[object]]] = {
    "run": lambda hub: hub.run(execution_pb2.RunExecutionRequest(session="s", spec={"definition": "workflow"})),
    "watch_session": lambda hub: hub.watch_session("s"),
    "watch_execution": lambda hub: hub.watch_execution("e"),
    "watch_blob": lambda hub: hub.watch_blob("acme/pipeline"),
    "watch_audit": lambda hub: hub.watch_audit("acme"),
    "watch_firings": lambda hub: hub.watch_firings("acme/nightly"),
}


async def all_of(events: AsyncIterator[object]) -> list[object]:
    return [event async for event in events]


@pytest.mark.parametrize("way", WAYS)
async def test_where_nothing_listens_the_client_gives_up_and_names_the_address(way: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with connect(address, "key", connect_seconds=0.5) as hub:
            with pytest.raises(Unreachable, match=address):
                await within_deadline(all_of(WAYS[way](hub)))


async def test_who_listens_and_never_answers_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with connect(address, "key", connect_seconds=0.5) as hub:
            with pytest.raises(Unreachable, match=address):
                await within_deadline(all_of(WAYS["run"](hub)))


async def test_tls_and_clear_do_not_meet_and_the_client_says_what_may_be_wrong(tmp_path: Path) -> None:
    authority = Authority("authority")
    certificate, key = authority.issue("server").write(tmp_path, "server")
    trusting = grpc.ssl_channel_credentials(authority.certificate)
    files = {"tls_certificate_file": certificate, "tls_key_file": key}
    async with served(tmp_path / "clear") as clear, served(tmp_path / "secure", **files) as secure:
        for server, credentials, hint in ((clear, trusting, "speak TLS"), (secure, None, "ask for TLS")):
            async with connect(server.address, "key", credentials=credentials, connect_seconds=0.5) as hub:
                with pytest.raises(Unreachable, match=hint):
                    await within_deadline(all_of(WAYS["watch_session"](hub)))


async def test_a_watch_whose_server_stays_away_ends_where_it_is_told_to(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with server.running(), connect(server.address, server.admin_key, reconnect_seconds=0.5) as hub:
        session_id = await Api(hub.channel, None).session(flows.steps(1))
        await hub.executions.StartExecution(
            execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
        )
        seen: list[object] = []

        async def watch() -> None:
            async for event in hub.watch_session(session_id):
                seen.append(event)  # noqa: PERF401  the test looks at it meanwhile

        watching = asyncio.create_task(watch())
        await until(lambda: seen)
        server.kill()
        with pytest.raises(Unreachable, match=server.address):
            await within_deadline(watching)


async def test_a_server_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    with socket.socket() as kept:
        # The port stays bound, so nobody but the server gets it; until then a connection to it is refused.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{kept.getsockname()[1]}"
        async with connect(address, connect_seconds=DEADLINE_SECONDS) as hub:
            watching = asyncio.create_task(all_of(hub.watch_session("acme/pipeline@draft/main")))
            await asyncio.sleep(0.2)
            async with served(tmp_path / "data", listen=address):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await within_deadline(watching)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
