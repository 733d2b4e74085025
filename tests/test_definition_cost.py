"""No definition, as large as one may be, keeps the event loop: each is read, checked and compiled beside it."""

from __future__ import annotations

from functools import partial
from typing import Any

import flows
import grpc
import pytest
from acme import DRAFT
from calling import ask
from figures import Figure
from large_definitions import LARGE
from meter import MeteredServer, hold_the_bound
from served import Api, connected


@pytest.fixture(scope="module")
async def metered(tmp_path_factory: pytest.TempPathFactory) -> tuple[MeteredServer, Api]:
    """A server whose loop is measured, which has done everything once; all tests here share it."""
    server = MeteredServer(tmp_path_factory.mktemp("metered"))
    async with server.running(), connected(server.address, server.admin_key) as api:
        await api.session(flows.code("set_data_output('result', 1)"))
        await use(api, flows.code("set_result('elsewhere')"))
        yield server, api


async def use(api: Api, document: str) -> None:
    """Check a definition, put it, and have it told, as a document and as a message."""
    await ask(api, "CheckDefinition", revision=DRAFT, document=document)
    if not await put(api, document=document):
        return
    found = await ask(api, "GetDefinition", definition=f"{DRAFT}/large")
    assert found.document == document
    await ask(api, "CheckDefinition", revision=DRAFT, definition="large")
    await ask(api, "CheckDefinition", revision=DRAFT, content=found.content)
    await put(api, content=found.content)


async def put(api: Api, **body: Any) -> bool:
    """Put a definition; false where it is refused."""
    try:
        await ask(api, "PutDefinition", revision=DRAFT, alias="large", **body)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
            raise
        return False
    return True


@pytest.mark.parametrize("shape", LARGE)
async def test_no_large_definition_keeps_the_loop(metered: tuple[MeteredServer, Api], shape: str, figure: Figure) -> None:
    server, api = metered
    reading = await hold_the_bound(partial(server.measure, partial(use, api, LARGE[shape])))
    figure(f"{shape}: at most {reading.worst_ms:.0f} ms of the loop, {server.peak_bytes >> 20} MiB")
