"""Members: who holds which role, who may say so, and the last admin."""

from __future__ import annotations

import asyncio

import acme
import grpc
import pytest
from acme import ADMIN, READ, WRITE
from blobhub.v1 import access_pb2, blob_pb2, member_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from served import Api, Served, connected

pytestmark = pytest.mark.either_database

DENIED = grpc.StatusCode.PERMISSION_DENIED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def get(api: Api, scope: str, user: str) -> member_pb2.Member:
    return (await api.members.GetMember(member_pb2.GetMemberRequest(parent=scope, user=user))).member


async def update(api: Api, scope: str, user: str, role: str, **fields) -> member_pb2.Member:
    request = member_pb2.UpdateMemberRequest(parent=scope, user=user, role=role, **fields)
    return (await api.members.UpdateMember(request)).member


async def delete(api: Api, scope: str, user: str, **fields) -> None:
    await api.members.DeleteMember(member_pb2.DeleteMemberRequest(parent=scope, user=user, **fields))


async def listed(api: Api, scope: str) -> list[str]:
    return [
        member.user_name for member in (await api.members.ListMembers(member_pb2.ListMembersRequest(parent=scope))).members
    ]


@pytest.fixture
async def house(api: Api) -> Api:
    """`acme/pipeline`, and `ann` and `bob` without roles. The administrator is the admin of `acme`."""
    await acme.organization(api)
    await acme.blob(api)
    for name in ("ann", "bob"):
        await acme.user(api, name)
    return api


@pytest.mark.both_databases
async def test_a_member_is_made_found_and_named_in_every_way(house: Api) -> None:
    blob = await acme.get_blob(house)
    made = await acme.member(house, "acme/pipeline", "ann", WRITE)
    assert (made.user_name, made.organization_id, made.blob_id, made.role) == (
        "ann",
        blob.organization_id,
        blob.id,
        access_pb2.ROLE_WRITE,
    )
    assert made.create_time == made.update_time
    for scope in ("acme/pipeline", blob.id, f"{blob.organization_id}/pipeline"):
        for user in ("@ann", made.user_id):
            assert await get(house, scope, user) == made
    of_acme = await acme.member(house, blob.organization_id, "ann")
    assert (of_acme.organization_id, of_acme.blob_id, of_acme.role) == (blob.organization_id, "", access_pb2.ROLE_READ)


async def test_the_members_of_a_scope_are_those_of_itself(house: Api) -> None:
    await acme.member(house, "acme/pipeline", "ann")
    await acme.member(house, "acme", "bob")
    assert await listed(house, "acme") == ["administrator", "bob"]
    assert await listed(house, "acme/pipeline") == ["ann"]
    for scope, user in (("acme", "@ann"), ("acme/pipeline", "@bob"), ("acme/pipeline", "@me")):
        await expect_refusal(get(house, scope, user), NOT_FOUND, "NOT_FOUND")


@pytest.mark.both_databases
async def test_members_are_listed_by_user_id_a_page_at_a_time(house: Api) -> None:
    for name in ("ann", "bob"):
        await acme.member(house, "acme", name)
    request = member_pb2.ListMembersRequest(parent="acme", page_size=2)
    first = await house.members.ListMembers(request)
    request.page_token = first.next_page_token
    second = await house.members.ListMembers(request)
    ids = [member.user_id for member in (*first.members, *second.members)]
    assert (len(ids), second.next_page_token) == (3, "")
    assert ids == sorted(ids)
    request.parent = "acme/pipeline"
    await expect_refusal(house.members.ListMembers(request), INVALID, "INVALID_PAGE_TOKEN")


@pytest.mark.both_databases
async def test_a_user_is_a_member_once_and_must_be_there(house: Api) -> None:
    await acme.member(house, "acme", "ann")
    await expect_refusal(acme.member(house, "acme", "ann", ADMIN), grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    await expect_refusal(acme.member(house, "acme", "nobody"), NOT_FOUND, "NOT_FOUND")
    unreadable = member_pb2.CreateMemberRequest(parent="acme", user="ann", role=READ)
    await expect_refusal(house.members.CreateMember(unreadable), INVALID, "INVALID_REFERENCE")
    for role in ("ROLE_UNSPECIFIED", 4):
        bad = member_pb2.CreateMemberRequest(parent="acme", user="@bob", role=role)
        await expect_refusal(house.members.CreateMember(bad), INVALID, "INVALID_REQUEST")


async def test_who_is_a_user_of_the_server_is_not_told_to_members(server: Served, house: Api) -> None:
    """A user who is not a member, and one who is not there, read the same: users see themselves alone."""
    async with acme.person(server, house, "cid", ("acme", ADMIN)) as admin:
        for ask in (
            lambda user: get(admin, "acme", user),
            lambda user: update(admin, "acme", user, READ),
            lambda user: delete(admin, "acme", user),
        ):
            there, absent = [await expect_refusal(ask(user), NOT_FOUND, "NOT_FOUND") for user in ("@bob", "@nobody")]
            assert there.details().replace("@bob", "@nobody") == absent.details()


async def test_an_update_gives_another_role_and_holds_from_the_next_call_on(server: Served, house: Api) -> None:
    async with acme.person(server, house, "cid", ("acme", READ)) as cid:
        await expect_refusal(acme.blob(cid, "acme/mine"), DENIED, "PERMISSION_DENIED")
        before = await get(house, "acme", "@cid")
        after = await update(house, "acme", "@cid", WRITE, etag=before.etag)
        assert (after.role, after.create_time) == (access_pb2.ROLE_WRITE, before.create_time)
        assert after.etag != before.etag
        assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
        assert await get(cid, "acme", "@me") == after
        await acme.blob(cid, "acme/mine")
        stale = (update(house, "acme", "@cid", READ, etag=before.etag), delete(house, "acme", "@cid", etag=before.etag))
        for call in stale:
            await expect_refusal(call, grpc.StatusCode.ABORTED, "STALE_ETAG")
        await delete(house, "acme", "@cid", etag=after.etag)
        await expect_refusal(acme.get_blob(cid, "acme/mine"), DENIED, "PERMISSION_DENIED")
    await expect_refusal(delete(house, "acme", "@cid"), NOT_FOUND, "NOT_FOUND")


async def test_the_stronger_of_two_roles_counts(server: Served, house: Api) -> None:
    async with acme.person(server, house, "cid", ("acme", READ), ("acme/pipeline", ADMIN)) as cid:
        await acme.update_blob(cid, description="mine")
        await update(house, "acme/pipeline", "@cid", READ)
        await expect_refusal(acme.update_blob(cid, description="again"), DENIED, "PERMISSION_DENIED")
        await update(house, "acme", "@cid", ADMIN)
        await acme.update_blob(cid, description="again")


async def test_members_are_managed_by_admins_of_the_scope_and_seen_by_its_members(server: Served, house: Api) -> None:
    async with (
        acme.person(server, house, "cid", ("acme", WRITE)) as writer,
        acme.person(server, house, "dan", ("acme/pipeline", ADMIN)) as of_the_blob,
        acme.person(server, house, "eve") as stranger,
    ):
        assert await listed(writer, "acme") == await listed(house, "acme")
        assert await listed(writer, "acme/pipeline") == ["dan"]
        for call in (
            acme.member(writer, "acme", "ann"),
            update(writer, "acme", "@me", ADMIN),
            delete(writer, "acme", "@administrator"),
            acme.member(of_the_blob, "acme", "ann"),
            listed(of_the_blob, "acme"),
            listed(stranger, "acme"),
            get(stranger, "acme", "@me"),
        ):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")
        await acme.member(of_the_blob, "acme/pipeline", "ann", READ)
        await delete(of_the_blob, "acme/pipeline", "@me")
        await expect_refusal(listed(of_the_blob, "acme/pipeline"), DENIED, "PERMISSION_DENIED")


async def test_the_last_admin_of_an_organization_stays(server: Served, house: Api) -> None:
    async with acme.person(server, house, "cid", ("acme", ADMIN)) as cid:
        await delete(cid, "acme", "@administrator")
        for call in (
            delete(cid, "acme", "@me"),
            update(cid, "acme", "@me", WRITE),
            delete(house, "acme", "@cid"),
            update(house, "acme", "@cid", READ),
        ):
            await expect_refusal(call, PRECONDITION, "LAST_ADMIN")
        await update(cid, "acme", "@me", ADMIN)
        await acme.member(cid, "acme", "ann", ADMIN)
        await delete(cid, "acme", "@me")
    assert await listed(house, "acme") == ["ann"]


async def test_an_admin_who_is_disabled_does_not_count_as_one(house: Api) -> None:
    await acme.member(house, "acme", "ann", ADMIN)
    await acme.update_user(house, "@ann", disabled=True)
    await expect_refusal(delete(house, "acme", "@me"), PRECONDITION, "LAST_ADMIN")
    await delete(house, "acme", "@ann")
    await acme.member(house, "acme", "ann", ADMIN)
    await acme.update_user(house, "@ann", disabled=False)
    await delete(house, "acme", "@me")


async def test_a_blob_needs_no_admin_of_its_own(house: Api) -> None:
    await acme.member(house, "acme/pipeline", "ann", ADMIN)
    await delete(house, "acme/pipeline", "@ann")
    assert await listed(house, "acme/pipeline") == []


@pytest.mark.both_databases
async def test_of_admins_who_leave_at_the_same_time_one_stays(house: Api) -> None:
    for name in ("ann", "bob"):
        await acme.member(house, "acme", name, ADMIN)
    leaving = (delete(house, "acme", f"@{name}") for name in ("administrator", "ann", "bob"))
    answers = await asyncio.gather(*leaving, return_exceptions=True)
    assert sum(isinstance(answer, grpc.aio.AioRpcError) for answer in answers) == 1
    assert len(await listed(house, "acme")) == 1


async def test_an_open_stream_ends_when_its_watcher_is_no_longer_a_member(server: Served, house: Api) -> None:
    async with acme.person(server, house, "cid", ("acme", READ)) as cid:
        watch = cid.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline"))
        assert (await watch.read()).events
        await update(house, "acme", "@cid", WRITE)
        await delete(house, "acme", "@cid")
        await expect_refusal(watch.read(), DENIED, "PERMISSION_DENIED")


async def test_a_scope_by_an_old_alias_is_told_as_renamed(server: Served, house: Api) -> None:
    await acme.rename_organization(house, "acme", "new")
    for call in (listed(house, "acme"), acme.member(house, "acme", "ann"), get(house, "acme/pipeline", "@me")):
        await expect_refusal(call, NOT_FOUND, "RENAMED")
    key = (await acme.key(house, "new")).key
    async with connected(server.address, key) as scoped:
        assert await listed(scoped, "new") == ["administrator"]
        await expect_refusal(get(scoped, "new", "@me"), NOT_FOUND, "NOT_FOUND")
