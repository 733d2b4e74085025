"""Users: made by administrators, seen by themselves, disabled and enabled again; the last administrator."""

from __future__ import annotations

import asyncio
from functools import partial

import acme
import grpc
import pytest
from acme import ADMIN, READ
from blobhub.v1 import blob_pb2, caller_pb2, user_pb2
from blobhub_client import page
from blobhub_server.blobtypes.conformance import expect_refusal
from served import Api, Served, connected
from waiting import refused_in_the_end, until

pytestmark = pytest.mark.either_database

DENIED = grpc.StatusCode.PERMISSION_DENIED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def get(api: Api, reference: str = "@me") -> user_pb2.User:
    return (await api.users.GetUser(user_pb2.GetUserRequest(user=reference))).user


async def names(api: Api, **fields) -> list[str]:
    return [user.name async for user in page(api.users.ListUsers, user_pb2.ListUsersRequest(**fields))]


async def who(api: Api) -> caller_pb2.Caller:
    return (await api.callers.GetCaller(caller_pb2.GetCallerRequest())).caller


@pytest.mark.both_databases
async def test_an_administrator_makes_a_user_who_has_nothing_yet(server: Served, api: Api) -> None:
    made = await acme.user(api, "ann", display_name="Ann of acme")
    assert (made.name, made.display_name, made.issuer, made.subject) == ("ann", "Ann of acme", "", "")
    assert not made.administrator
    assert not made.disabled
    assert made.create_time == made.update_time
    assert await get(api, "@ann") == await get(api, made.id) == made
    async with connected(server.address, (await acme.key(api, "@ann", ADMIN)).key) as ann:
        assert list((await ann.callers.GetCaller(caller_pb2.GetCallerRequest())).roles) == []
        assert await get(ann) == await get(ann, "@ann") == await get(ann, made.id) == made


@pytest.mark.parametrize("name", ["", "me", "Ann", "@ann", "a b", "a" * 64, "01890000-0000-7000-8000-000000000000"])
async def test_a_name_that_references_cannot_hold_is_refused(api: Api, name: str) -> None:
    await expect_refusal(acme.user(api, name), INVALID, "INVALID_REQUEST")


@pytest.mark.both_databases
async def test_a_name_is_taken_once(api: Api) -> None:
    await acme.user(api, "ann")
    for name in ("ann", "administrator"):
        await expect_refusal(acme.user(api, name), grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")


async def test_users_see_themselves_and_nobody_else(server: Served, api: Api, anonymous: Api) -> None:
    async with acme.person(server, api, "ann") as ann:
        administrator = await get(api)
        said = [
            await expect_refusal(get(ann, reference), DENIED, "PERMISSION_DENIED")
            for reference in ("@administrator", administrator.id, "@nobody", "01890000-0000-7000-8000-000000000000")
        ]
        assert len({(error.details(), str(error.trailing_metadata())) for error in said}) == 1
        for call in (names(ann), acme.user(ann, "bob"), acme.update_user(ann, "@ann", administrator=True)):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")
        await expect_refusal(get(ann, "ann"), INVALID, "INVALID_REFERENCE")
    for call in (get(anonymous), names(anonymous), acme.user(anonymous, "bob")):
        await expect_refusal(call, UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_a_key_of_an_organization_is_nobody(server: Served, api: Api) -> None:
    await acme.organization(api)
    async with connected(server.address, (await acme.key(api, "acme")).key) as scoped:
        await expect_refusal(get(scoped), DENIED, "PERMISSION_DENIED")


@pytest.mark.both_databases
async def test_users_are_listed_oldest_first_or_with_a_prefix_by_name_and_in_pages(api: Api) -> None:
    for name in ("zoe", "ann-1", "ann", "ann_2", "bob"):
        await acme.user(api, name)
    assert await names(api) == ["administrator", "zoe", "ann-1", "ann", "ann_2", "bob"]
    assert await names(api, page_size=2) == await names(api)
    assert await names(api, name_prefix="ann", page_size=1) == ["ann", "ann-1", "ann_2"]
    token = (await api.users.ListUsers(user_pb2.ListUsersRequest(page_size=1))).next_page_token
    other = user_pb2.ListUsersRequest(page_size=1, name_prefix="a", page_token=token)
    await expect_refusal(api.users.ListUsers(other), INVALID, "INVALID_PAGE_TOKEN")


async def test_an_update_changes_what_its_mask_names(api: Api) -> None:
    before = await acme.user(api, "ann", display_name="Ann")
    request = user_pb2.UpdateUserRequest(user="@ann", display_name="Anne", disabled=True, administrator=True)
    request.update_mask.paths.append("display_name")
    request.etag = before.etag
    after = (await api.users.UpdateUser(request)).user
    assert (after.display_name, after.disabled, after.administrator) == ("Anne", False, False)
    assert after.etag != before.etag
    await expect_refusal(api.users.UpdateUser(request), grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert (await acme.update_user(api, "@ann", display_name="")).display_name == ""
    assert (await acme.update_user(api, after.id, administrator=True, display_name="A")).administrator
    for absent in ("@nobody", "01890000-0000-7000-8000-000000000000"):
        await expect_refusal(acme.update_user(api, absent, disabled=True), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    for paths in ([], ["name"], None):
        mask = {} if paths is None else {"update_mask": {"paths": paths}}
        unmasked = user_pb2.UpdateUserRequest(user="@ann", disabled=True, **mask)
        await expect_refusal(api.users.UpdateUser(unmasked), INVALID, "INVALID_REQUEST")


async def test_a_disabled_user_is_refused_until_enabled_again(server: Served, api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    async with acme.person(server, api, "ann", ("acme", READ)) as ann:
        watch = ann.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline"))
        assert (await watch.read()).events
        assert (await acme.update_user(api, "@ann", disabled=True)).disabled
        await expect_refusal(watch.read(), UNAUTHENTICATED, "UNAUTHENTICATED")
        for call in (partial(acme.get_blob, ann), partial(who, ann), partial(get, ann)):
            await refused_in_the_end(call, UNAUTHENTICATED, "UNAUTHENTICATED")
        await acme.update_user(api, "@ann", disabled=False)
        assert await acme.get_blob(ann), "roles and keys were kept"


async def test_an_administrator_has_every_role_until_they_are_none(server: Served, api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    async with acme.person(server, api, "ann") as ann:
        await expect_refusal(acme.get_blob(ann), DENIED, "PERMISSION_DENIED")
        await acme.update_user(api, "@ann", administrator=True)
        await until(partial(acme.is_administrator, ann))
        await acme.update_blob(ann, description="changed")
        watch = ann.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline"))
        assert (await watch.read()).events
        await acme.update_user(ann, "@ann", administrator=False)
        await expect_refusal(watch.read(), DENIED, "PERMISSION_DENIED")


async def test_the_last_administrator_stays(api: Api) -> None:
    for change in ({"administrator": False}, {"disabled": True}):
        await expect_refusal(acme.update_user(api, "@me", **change), PRECONDITION, "LAST_ADMIN")
    await acme.user(api, "ann", administrator=True)
    await acme.update_user(api, "@ann", disabled=True)
    await expect_refusal(acme.update_user(api, "@administrator", administrator=False), PRECONDITION, "LAST_ADMIN")
    await acme.update_user(api, "@ann", disabled=False)
    assert not (await acme.update_user(api, "@me", administrator=False)).administrator


@pytest.mark.both_databases
async def test_of_administrators_who_leave_at_the_same_time_one_stays(server: Served, api: Api) -> None:
    await acme.user(api, "ann", administrator=True)
    async with connected(server.address, (await acme.key(api, "@ann", ADMIN)).key) as ann:
        leaving = (acme.update_user(api, "@me", administrator=False), acme.update_user(ann, "@me", disabled=True))
        answers = await asyncio.gather(*leaving, return_exceptions=True)
    assert sum(isinstance(answer, grpc.aio.AioRpcError) for answer in answers) == 1
