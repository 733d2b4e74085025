"""Callers: who the server takes them for, by which key, and with which roles."""

from __future__ import annotations

import acme
import grpc
import pytest
from acme import ADMIN, PUBLIC, READ, WRITE
from blobhub.v1 import access_pb2, caller_pb2, user_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from plans import asked
from served import Api, Served, connected

pytestmark = pytest.mark.either_database

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOWHERE = "01890000-0000-7000-8000-000000000000"


async def who(api: Api, scope: str = "") -> caller_pb2.GetCallerResponse:
    return await api.callers.GetCaller(caller_pb2.GetCallerRequest(parent=scope))


async def roles(api: Api, scope: str = "") -> dict[str, str]:
    """Roles by readable reference, in the order of the answer."""
    return {item.reference: access_pb2.Role.Name(item.role) for item in (await who(api, scope)).roles}


@pytest.fixture
async def house(api: Api) -> Api:
    """`acme/pipeline`, private, and `open/pipeline`, public."""
    await acme.organization(api)
    await acme.blob(api)
    await acme.organization(api, "open", visibility=PUBLIC)
    await acme.blob(api, "open/pipeline", visibility=PUBLIC)
    return api


async def test_an_anonymous_caller_is_told_so(house: Api, anonymous: Api) -> None:
    answer = await who(anonymous)
    assert answer.caller == caller_pb2.Caller(anonymous=True)
    assert list(answer.roles) == []


async def test_a_user_is_told_name_key_and_when_it_ends(server: Served, api: Api) -> None:
    ann, ends = await acme.user(api, "ann"), acme.after(600)
    made = await acme.key(api, "@ann", WRITE, expire_time=ends)
    async with connected(server.address, made.key) as connection:
        found = (await who(connection)).caller
    assert found == caller_pb2.Caller(
        user_id=ann.id,
        user_name="ann",
        api_key_id=made.api_key.id,
        role=access_pb2.ROLE_WRITE,
        expire_time=made.api_key.expire_time,
    )
    me = (await who(api)).caller
    user = (await api.users.GetUser(user_pb2.GetUserRequest(user="@me"))).user
    assert (me.user_id, me.administrator, me.role) == (user.id, True, access_pb2.ROLE_ADMIN)


async def test_a_key_is_told_its_scope_and_the_role_it_gives_there(server: Served, house: Api) -> None:
    blob = await acme.get_blob(house)
    for scope, parent_id, blob_id in (("acme", blob.organization_id, ""), ("acme/pipeline", blob.id, blob.id)):
        made = await acme.key(house, scope, WRITE)
        async with connected(server.address, made.key) as scoped:
            answer = await who(scoped)
        assert answer.caller == caller_pb2.Caller(
            api_key_id=made.api_key.id, parent_id=parent_id, role=access_pb2.ROLE_WRITE
        )
        expected = {
            "organization_id": blob.organization_id,
            "blob_id": blob_id,
            "reference": scope,
            "role": access_pb2.ROLE_WRITE,
        }
        assert list(answer.roles) == [caller_pb2.EffectiveRole(**expected)]


async def test_roles_are_the_stronger_of_two_and_capped_by_the_key(server: Served, house: Api) -> None:
    """Oldest organizations and blobs first."""
    held = (("open/pipeline", READ), ("acme/pipeline", READ), ("acme", WRITE))
    async with acme.person(server, house, "ann", *held) as ann:
        assert list((await roles(ann)).items()) == [("acme", WRITE), ("acme/pipeline", WRITE), ("open/pipeline", READ)]
        confined = (await acme.key(ann, "@me", READ)).key
    async with connected(server.address, confined) as reader:
        assert await roles(reader) == {"acme": READ, "acme/pipeline": READ, "open/pipeline": READ}


async def test_one_scope_is_asked_about_in_every_way_it_can_be_named(server: Served, house: Api) -> None:
    blob = await acme.get_blob(house)
    async with acme.person(server, house, "ann", ("acme", WRITE), ("acme/pipeline", ADMIN)) as ann:
        for scope in ("acme/pipeline", blob.id, f"{blob.organization_id}/pipeline"):
            assert await roles(ann, scope) == {"acme/pipeline": ADMIN}
        for scope in ("acme", blob.organization_id):
            assert await roles(ann, scope) == {"acme": WRITE}
        await acme.blob(ann, "acme/other")
        assert await roles(ann, "acme/other") == {"acme/other": WRITE}, "it comes from the organization"


async def test_what_everybody_may_read_is_answered_to_everybody(server: Served, house: Api, anonymous: Api) -> None:
    async with acme.person(server, house, "ann") as ann:
        for caller in (ann, anonymous):
            assert await roles(caller, "open") == {"open": READ}
            assert await roles(caller, "open/pipeline") == {"open/pipeline": READ}
            assert await roles(caller) == {}, "it is not the caller's own"


async def test_an_administrator_is_told_of_the_role_everywhere_where_it_is_asked_about(server: Served, house: Api) -> None:
    async with acme.person(server, house, "ann") as ann:
        await acme.update_user(house, "@ann", administrator=True)
        key = (await acme.key(house, "@ann", ADMIN)).key
        assert ann.key != key
    async with connected(server.address, key) as administrator:
        assert await roles(administrator) == {}
        for scope in ("acme", "acme/pipeline"):
            assert await roles(administrator, scope) == {scope: ADMIN}


async def test_an_absent_scope_and_a_forbidden_one_read_the_same(server: Served, house: Api, anonymous: Api) -> None:
    await acme.organization(house, "old")
    await acme.rename_organization(house, "old", "new")
    async with (
        acme.person(server, house, "ann", ("open", READ)) as ann,
        connected(server.address, (await acme.key(house, "acme/pipeline")).key) as scoped,
    ):
        for caller in (ann, anonymous, scoped):
            said = [await who(caller, scope) for scope in ("old", "new", "no-such", "no-such/blob", NOWHERE)]
            assert all(answer == said[0] for answer in said)
            assert list(said[0].roles) == []
        assert await roles(scoped, "acme") == {}


async def test_a_scope_by_an_old_alias_is_told_as_renamed_to_who_holds_a_role(house: Api) -> None:
    await acme.rename_organization(house, "acme", "new")
    for scope in ("acme", "acme/pipeline"):
        await expect_refusal(who(house, scope), grpc.StatusCode.NOT_FOUND, "RENAMED")
    assert await roles(house, "new/pipeline") == {"new/pipeline": ADMIN}


@pytest.mark.parametrize("scope", ["Acme", "acme/", "acme/pipeline@1", "@me", "-", "a b"])
async def test_a_scope_that_cannot_be_read_is_refused(anonymous: Api, scope: str) -> None:
    await expect_refusal(who(anonymous, scope), INVALID, "INVALID_REFERENCE")


async def test_a_scope_that_is_too_long_is_refused(anonymous: Api) -> None:
    await expect_refusal(who(anonymous, "a/" * 65), INVALID, "INVALID_REQUEST")


async def test_a_caller_with_many_roles_costs_no_more_statements_than_one_with_few(server: Served, house: Api) -> None:
    async with acme.person(server, house, "ann", ("acme", READ)) as ann:

        async def reading() -> int:
            """How many statements read organizations, blobs and members for one answer."""
            with asked() as seen:
                await who(ann)
            return sum(any(table in statement.sql for table in ("organizations", "blobs", "members")) for statement in seen)

        await who(ann)  # From here on her key is remembered.
        few = await reading()
        for number in range(40):
            await acme.blob(house, f"acme/blob-{number}")
            await acme.member(house, f"acme/blob-{number}", "ann", WRITE)
        assert len(await roles(ann)) == 41
        assert 0 < await reading() == few
