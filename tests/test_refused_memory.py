"""What a call that was refused leaves behind: nothing that only a full collection finds, as its request may be large."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import acme
import flows
import grpc
import pytest
from blobhub.v1 import blob_pb2, definition_pb2, session_pb2
from blobhub_server.rpc.observed import Observed
from served import Api

LARGE = "x" * (1 << 20)


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """The objects that the collector finds meanwhile, which are kept; none are found before it is told to look."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.enable()
    gc.garbage.clear()


async def first_of(stream: object) -> object:
    return [message async for message in stream]  # type: ignore[attr-defined]


REFUSED: dict[str, Callable[[Api], Awaitable[object]]] = {
    "a broken constraint": lambda api: api.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="?")),
    "a broken constraint of a large request": lambda api: api.blobs.GetBlob(blob_pb2.GetBlobRequest(blob=LARGE)),
    "nothing there": lambda api: acme.get_blob(api, "acme/absent"),
    "an invalid document": lambda api: api.definitions.PutDefinition(
        definition_pb2.PutDefinitionRequest(revision="acme/pipeline@draft", alias="workflow", document=LARGE)
    ),
    "a stream": lambda api: first_of(api.sessions.WatchSession(session_pb2.WatchSessionRequest(session="acme/absent@1/x"))),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_refused_call_is_gone_with_its_request_when_it_is_answered(
    api: Api, garbage: list[object], kind: str
) -> None:
    await api.session(flows.steps(1))
    gc.collect()
    garbage.clear()
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError):
            await REFUSED[kind](api)
    gc.collect()
    found = Counter(type(item).__qualname__ for item in garbage)
    assert Observed.__qualname__ not in found, found
    assert not [item for item in garbage if isinstance(item, str) and len(item) >= len(LARGE)]
