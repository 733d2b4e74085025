"""Calls are arguments: handlers are called as functions here, without gRPC, on a real database."""

from __future__ import annotations

import ast
import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import blobhub_server
import pytest
from blobhub.v1 import blob_pb2, organization_pb2
from blobhub_server.blobtypes.access import Caller, Place, Role
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import AlreadyExists, PermissionDenied, RequestIdReused, StaleEtag, UnknownBlobType
from blobhub_server.onnx.oip.access import ACCESS as OPEN_INFERENCE
from blobhub_server.platform.blobs.events import BlobEvents
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.user import new_user
from blobhub_server.platform.services.blob import BlobService
from blobhub_server.platform.services.organization import OrganizationService
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store import user as user_store
from blobhub_server.rpc.handlers import MismatchedHandlers, UnknownService, generic_handler
from databases import select
from methods import served_methods
from served import WORKFLOW
from unserved import Unserved, unserved

SERVER = Path(blobhub_server.__file__).parent


@pytest.fixture
async def platform(tmp_path, database_url) -> AsyncIterator[Unserved]:
    async with unserved(tmp_path / "data", database_url) as made:
        yield made


@pytest.fixture
async def owner(platform: Unserved) -> Caller:
    """A user who calls."""
    now, ids = platform.host.clock(), platform.host.ids
    user = new_user(id=ids(), name="owner", now=now, etag=ids())
    async with platform.host.db.write() as tx:
        await user_store.insert(tx, user)
    return Caller(user_id=user.id, user_name=user.name, role=Role.ADMIN)


@pytest.fixture
async def acme(platform: Unserved, owner: Caller) -> Organization:
    """An organization, made by its service."""
    service = OrganizationService(platform.host, platform.types)
    request = organization_pb2.CreateOrganizationRequest(alias="acme")
    answer = await service.CreateOrganization(request, platform.call(request, caller=owner))
    async with platform.host.db.read() as tx:
        found = await organization_store.find(tx, id_=answer.organization.id)
    assert found is not None
    return found


@pytest.fixture
def blobs(platform: Unserved) -> BlobService:
    host = platform.host
    return BlobService(host, platform.types, BlobEvents(host.bell, host.clock, host.ids))


def creation(alias: str = "pipeline", **fields) -> blob_pb2.CreateBlobRequest:
    return blob_pb2.CreateBlobRequest(organization="acme", alias=alias, **{"type": WORKFLOW} | fields)


async def test_a_blob_is_made_and_read_by_calling_two_functions(
    platform: Unserved, owner: Caller, acme: Organization, blobs: BlobService
) -> None:
    request = creation()
    call = platform.call(request, acme, place=Place(organization_id=acme.id), caller=owner)
    made = await blobs.CreateBlob(request, call)
    assert (made.blob.alias, made.blob.organization_id, call.recorded) == ("pipeline", acme.id, True)
    async with platform.host.db.read() as tx:
        blob = await blob_store.get(tx, made.blob.id)
    get = blob_pb2.GetBlobRequest(blob="acme/pipeline")
    assert (await blobs.GetBlob(get, platform.call(get, blob))).blob == made.blob


async def test_what_a_handler_refuses_is_raised_to_who_calls_it(
    platform: Unserved, owner: Caller, acme: Organization, blobs: BlobService
) -> None:
    place = Place(organization_id=acme.id)
    made = await blobs.CreateBlob(creation(), platform.call(creation(), acme, place=place, caller=owner))
    with pytest.raises(AlreadyExists):
        await blobs.CreateBlob(creation(), platform.call(creation(), acme, place=place, caller=owner))
    other = creation(type="no.such.type")
    with pytest.raises(UnknownBlobType):
        await blobs.CreateBlob(other, platform.call(other, acme, place=place, caller=owner))
    public = creation("open", visibility="VISIBILITY_PUBLIC")
    with pytest.raises(PermissionDenied):
        await blobs.CreateBlob(public, platform.call(public, acme, place=place, caller=owner, role=Role.WRITE))
    async with platform.host.db.read() as tx:
        blob = await blob_store.get(tx, made.blob.id)
    stale = blob_pb2.UpdateBlobRequest(blob="acme/pipeline", description="new", etag=str(uuid.uuid4()))
    with pytest.raises(StaleEtag):
        await blobs.UpdateBlob(stale, platform.call(stale, blob, caller=owner))


async def test_a_change_leaves_its_answer_and_its_audit_entry_or_neither(
    platform: Unserved, database_url: str, owner: Caller, acme: Organization, blobs: BlobService
) -> None:
    request = creation(request_id=str(uuid.uuid4()))
    method = "/blobhub.v1.BlobService/CreateBlob"
    call = platform.call(request, acme, place=Place(organization_id=acme.id), caller=owner, method=method)
    left = "SELECT (SELECT count(*) FROM requests), (SELECT count(*) FROM audit_entries WHERE method LIKE '%/CreateBlob')"

    async def fails(tx: Transaction) -> blob_pb2.CreateBlobResponse:
        raise PermissionDenied

    with pytest.raises(PermissionDenied):
        await call.once(fails)
    assert not call.recorded
    assert await select(database_url, left) == [(0, 0)]
    made = await blobs.CreateBlob(request, call)
    assert await select(database_url, left) == [(1, 1)]

    async def never() -> bytes:
        raise AssertionError("it was made again")

    again = platform.call(request, acme, caller=owner, method=method)
    assert blob_pb2.CreateBlobResponse.FromString(await again.first_answer(never, bytes)) == made
    assert again.recorded
    other = creation("other", request_id=request.request_id)
    with pytest.raises(RequestIdReused):
        await platform.call(other, acme, caller=owner, method=method).first_answer(never, bytes)


async def test_of_the_same_request_sent_twice_at_once_both_get_the_answer_of_the_one_that_came_first(
    platform: Unserved, owner: Caller, acme: Organization, blobs: BlobService
) -> None:
    request, place = creation(request_id=str(uuid.uuid4())), Place(organization_id=acme.id)
    both_looked = asyncio.Barrier(2)

    async def sent() -> blob_pb2.CreateBlobResponse:
        call = platform.call(request, acme, place=place, caller=owner)

        async def make() -> blob_pb2.CreateBlobResponse:
            await both_looked.wait()
            return await blobs.CreateBlob(request, call)

        return await call.first_answer(make, blob_pb2.CreateBlobResponse.FromString)

    first, second = await asyncio.gather(sent(), sent())
    assert first == second


async def test_an_answer_is_not_given_again_to_who_may_no_longer_read_where_it_came_from(
    platform: Unserved, acme: Organization, blobs: BlobService
) -> None:
    request = creation(request_id=str(uuid.uuid4()))
    key = Caller(key_id=platform.host.ids(), organization_id=acme.id, role=Role.WRITE)
    await blobs.CreateBlob(request, platform.call(request, acme, place=Place(organization_id=acme.id), caller=key))
    lowered = Caller(key_id=key.key_id, organization_id=platform.host.ids(), role=Role.WRITE)

    async def never() -> bytes:
        raise AssertionError("it was made again")

    assert await platform.call(request, caller=key).first_answer(never, bytes)
    refused = platform.call(request, caller=lowered)
    with pytest.raises(PermissionDenied):
        await refused.first_answer(never, bytes)
    assert refused.place == Place(organization_id=acme.id), "the audit log is to say where"


class OrganizationHandlers:
    """A method for each RPC of OrganizationService."""

    async def CreateOrganization(self, request, call): ...
    async def GetOrganization(self, request, call): ...
    async def ListOrganizations(self, request, call): ...
    async def UpdateOrganization(self, request, call): ...
    async def DeleteOrganization(self, request, call): ...


def test_handlers_that_are_not_those_of_the_descriptor_stop_the_start_and_are_named() -> None:
    service = "blobhub.v1.OrganizationService"

    class Lacking(OrganizationHandlers):
        GetOrganization = None

    class Misspelt(OrganizationHandlers):
        async def GetOrganisation(self, request, call): ...

    generic_handler(service, OrganizationHandlers())
    with pytest.raises(MismatchedHandlers, match=r"Lacking has no method GetOrganization, .*OrganizationService"):
        generic_handler(service, Lacking())
    with pytest.raises(MismatchedHandlers, match=r"Misspelt has a method GetOrganisation, .*OrganizationService"):
        generic_handler(service, Misspelt())
    with pytest.raises(UnknownService, match=r"test\.v1\.Nothing"):
        generic_handler("test.v1.Nothing", OrganizationHandlers())


def test_nothing_in_the_server_is_ambient() -> None:
    for path in SERVER.rglob("*.py"):
        assert not re.search(r"ContextVar|\bcontextvars\b", path.read_text()), path


def test_every_handler_takes_a_typed_call_and_none_a_context() -> None:
    """gRPC's context is known to its own services and to the pipeline, which wraps them all."""
    modules = [path for path in SERVER.rglob("*.py") if path.relative_to(SERVER).parts[0] != "rpc"]
    nodes = [node for path in modules for node in ast.walk(ast.parse(path.read_text()))]
    handlers = [node for node in nodes if isinstance(node, ast.AsyncFunctionDef) and node.name[0].isupper()]
    assert {node.name for node in handlers} == {method.name for method in served_methods()} | OPEN_INFERENCE.keys()
    for handler in handlers:
        call = handler.args.args[-1]
        kind = ast.unparse(call.annotation) if call.annotation else ""
        assert (call.arg, kind[:5]) == ("call", "Call["), f"{handler.name} takes {call.arg}: {kind}"
        assert "Any" not in kind, f"{handler.name} takes {kind}"
