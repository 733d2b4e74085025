"""Puts that only create, with `create_only`, and Puts that only replace, with the etag `*`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import acme
import flows
import grpc
import pytest
from blobhub.v1 import definition_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from calling import ask
from google.protobuf.struct_pb2 import Value
from served import Api

Put = Callable[..., Awaitable[Any]]


async def definitions(api: Api) -> tuple[Put, Callable[[], Awaitable[object]]]:
    await api.session(flows.steps(1))

    def put(number: int, **more: Any) -> Awaitable[Any]:
        at = {"revision": "acme/pipeline@draft", "alias": "another-one"}
        return ask(api, "PutDefinition", **at, document=flows.steps(number + 1), **more)

    async def read() -> object:
        return (await ask(api, "GetDefinition", definition="acme/pipeline@draft/another-one")).document

    return put, read


async def session_objects(api: Api) -> tuple[Put, Callable[[], Awaitable[object]]]:
    session_id = await api.session(flows.steps(1))

    def put(number: int, **more: Any) -> Awaitable[Any]:
        return ask(api, "PutSessionObject", session=session_id, alias="one", value=Value(number_value=number), **more)

    async def read() -> object:
        found = await ask(api, "GetSessionObject", session=session_id, alias="one")
        return found.session_object.value.number_value

    return put, read


async def notes(api: Api) -> tuple[Put, Callable[[], Awaitable[object]]]:
    await acme.organization(api)
    await acme.blob(api, "acme/notes", "stranger.notes")

    def put(number: int, **more: Any) -> Awaitable[Any]:
        return ask(api, "PutNote", revision="acme/notes@draft", name="one", text=f"Note {number}.", **more)

    async def read() -> object:
        return (await ask(api, "GetNote", revision="acme/notes@draft", name="one")).text

    return put, read


each_put = pytest.mark.parametrize(
    ("make", "kind"), [(definitions, "definition"), (session_objects, "session object"), (notes, "note")]
)


@each_put
async def test_a_put_that_only_creates_leaves_what_is_there_as_it_is(api: Api, make: Any, kind: str) -> None:
    put, read = await make(api)
    await put(1, create_only=True)
    before = await read()
    refused = await expect_refusal(put(2, create_only=True), grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    assert refused.details() == f"there is already such a {kind}"
    assert await read() == before
    await put(2)
    assert await read() != before, "without it, a Put replaces"


@each_put
async def test_of_puts_that_only_create_at_once_one_is_accepted(api: Api, make: Any, kind: str) -> None:
    put, _ = await make(api)
    answers = await asyncio.gather(*(put(number, create_only=True) for number in range(8)), return_exceptions=True)
    refused = [error for error in answers if isinstance(error, grpc.aio.AioRpcError)]
    assert [error.code() for error in refused] == [grpc.StatusCode.ALREADY_EXISTS] * 7


async def test_a_repeated_put_that_only_creates_gets_its_first_answer(api: Api) -> None:
    put, _ = await definitions(api)
    request_id = "0b6d3a54-5b0c-4d6e-9f2e-0f6f1f1d2c3b"
    first = await put(1, create_only=True, request_id=request_id)
    assert first.definition.alias == "another-one"
    assert await put(1, create_only=True, request_id=request_id) == first


@pytest.mark.either_database
async def test_a_definition_is_put_and_checked_as_content_or_document(api: Api) -> None:
    await api.session(flows.steps(2))
    revision = "acme/pipeline@draft"
    content = (await ask(api, "GetDefinition", definition=f"{revision}/workflow")).content
    await ask(api, "PutDefinition", revision=revision, alias="as-content", content=content)
    assert (await ask(api, "GetDefinition", definition=f"{revision}/as-content")).content == content
    for subject in ({"definition": "as-content"}, {"document": flows.steps(2)}, {"content": content}):
        assert (await ask(api, "CheckDefinition", revision=revision, **subject)).runnable, subject
    empty = definition_pb2.WorkflowDefinition(type="workflow_definition")
    assert not (await ask(api, "CheckDefinition", revision=revision, content=empty)).runnable


@pytest.mark.either_database
@pytest.mark.parametrize("kind", [definitions, session_objects, notes])
async def test_a_put_with_the_etag_of_every_record_only_replaces(
    api: Api, kind: Callable[[Api], Awaitable[tuple[Put, Callable[[], Awaitable[object]]]]]
) -> None:
    put, read = await kind(api)
    await expect_refusal(put(1, etag="*"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await expect_refusal(read(), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await put(1, create_only=True)
    before = await read()
    await put(2, etag="*")
    assert await read() != before
    await expect_refusal(put(3, etag="*", create_only=True), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
