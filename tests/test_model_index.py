"""The index of models of the Open Inference Protocol: what a caller may read, and nothing else."""

from __future__ import annotations

from contextlib import AsyncExitStack

import acme
import models
import pytest
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.onnx.oip import open_inference_pb2 as pb
from blobhub_server.onnx.oip.access import SERVICE
from grpc import StatusCode
from onnx_models import relu
from served import Api, Served, connected

Index = pb.RepositoryIndexResponse


async def index(api: Api, organization: str = "", **fields) -> Index:
    ask = api.channel.unary_unary(
        f"/{SERVICE}/RepositoryIndex",
        request_serializer=pb.RepositoryIndexRequest.SerializeToString,
        response_deserializer=Index.FromString,
    )
    return await ask(pb.RepositoryIndexRequest(repository_name=organization, **fields))


async def names(api: Api, organization: str = "", **fields) -> list[str]:
    return [each.name for each in (await index(api, organization, **fields)).models]


async def test_everybody_is_listed_what_they_may_read(server: Served, api: Api, anonymous: Api) -> None:
    for organization in ("acme", "other"):
        await acme.organization(api, organization)
        await acme.blob(api, f"{organization}/private", models.ONNX)
        await acme.blob(api, f"{organization}/public", models.ONNX, visibility=acme.PUBLIC)
        await acme.blob(api, f"{organization}/pipeline", visibility=acme.PUBLIC)
    every = ["acme/private", "acme/public", "other/private", "other/public"]
    public = every[1::2]
    of_acme = await acme.key(api, "acme")
    of_blob = await acme.key(api, "other/private")
    async with AsyncExitStack() as stack:

        async def holder(key: str) -> Api:
            return await stack.enter_async_context(connected(server.address, key))

        callers = {
            "administrator": (api, every),
            "anonymous": (anonymous, public),
            "key of an organization": (await holder(of_acme.key), every[:2] + public[1:]),
            "key of a blob": (await holder(of_blob.key), public[:1] + every[2:]),
            "member of nothing": (await stack.enter_async_context(acme.person(server, api, "nobody")), public),
            "member of both": (
                await stack.enter_async_context(
                    acme.person(server, api, "both", ("acme", acme.READ), ("acme/private", acme.WRITE))
                ),
                every[:2] + public[1:],
            ),
            "member of a blob": (
                await stack.enter_async_context(
                    acme.person(server, api, "guest", ("other/private", acme.READ), key_role=acme.READ)
                ),
                public[:1] + every[2:],
            ),
        }
        for who, (caller, expected) in callers.items():
            assert await names(caller) == expected, who
            assert await names(caller, "acme") == [name for name in expected if name.startswith("acme/")], who
            paged, token = [], ""
            while not paged or token:
                answer = await index(caller, page_size=1, page_token=token)
                paged += [each.name for each in answer.models]
                token = answer.next_page_token
            assert paged == expected, who
    assert await names(api, "nowhere") == []
    await acme.delete_organization(api, "acme", cascade=True)
    assert await names(api) == every[2:]
    assert await names(anonymous, "acme") == []


@pytest.mark.either_database
async def test_an_index_says_what_a_request_without_a_version_gets(api: Api, anonymous: Api) -> None:
    await acme.organization(api)
    for alias in ("empty", "draft", "snapshot"):
        await acme.blob(api, f"acme/{alias}", models.ONNX, visibility=acme.PUBLIC)
    await models.stored(api, relu().SerializeToString(), "acme/draft@draft")
    await models.stored(api, relu().SerializeToString(), "acme/snapshot@draft")
    await api.publish("acme/snapshot")
    nothing, unseen = "its default revision has no model", "no revision is committed"
    ready = Index.ModelIndex(name="acme/snapshot", version="1", state="READY")
    draft = Index.ModelIndex(name="acme/draft", state="READY")
    empty = Index.ModelIndex(name="acme/empty", state="UNAVAILABLE", reason=nothing)
    assert list((await index(api)).models) == [empty, draft, ready]
    assert list((await index(api, ready=True)).models) == [draft, ready]
    hidden = [Index.ModelIndex(name=f"acme/{each}", state="UNAVAILABLE", reason=unseen) for each in ("empty", "draft")]
    assert list((await index(anonymous)).models) == [*hidden, ready]
    assert list((await index(anonymous, ready=True)).models) == [ready]
    # A draft after the snapshot is shown to nobody else, and the snapshot stays what they ask.
    draft_after = await acme.branch(api, "default", "acme/snapshot")
    await acme.update_blob(api, "acme/snapshot", default_revision=draft_after.id)
    ready.version = ""
    assert list((await index(api, "acme")).models)[-1] == ready
    ready.version = "1"
    assert list((await index(anonymous, "acme")).models)[-1] == ready


@pytest.mark.either_database
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"page_size": 1001}, "INVALID_VALUE"),
        ({"page_size": -1}, "INVALID_VALUE"),
        ({"page_token": "made-up"}, "INVALID_PAGE_TOKEN"),
        ({"organization": "Acme!"}, "INVALID_REFERENCE"),
        ({"organization": "acme/scorer"}, "INVALID_REFERENCE"),
    ],
)
async def test_an_index_that_cannot_be_is_refused(anonymous: Api, fields: dict, reason: str) -> None:
    await expect_refusal(index(anonymous, **fields), StatusCode.INVALID_ARGUMENT, reason)
