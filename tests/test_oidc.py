"""Tokens of an OpenID Connect issuer, over the wire: whom they make, and until when they hold."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import flows
import grpc
import pytest
from blobhub.v1 import access_pb2, blob_pb2, caller_pb2, member_pb2, organization_pb2, session_pb2, user_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, reason_of
from blobhub_server.config import Settings
from blobhub_server.platform.admission.oidc import configuration
from blobhub_server.platform.rules import oidc as rules
from blobhub_server.platform.rules.api_key import make_secret
from blobhub_server.start import StartError
from google.protobuf.field_mask_pb2 import FieldMask
from issuer import (
    AUDIENCE,
    ES,
    ISSUER,
    SERVED,
    WRONG,
    Issuer,
    claims,
    rsa_key,
    signed,
)
from served import WORKFLOW, Api, Served, connected, served
from waiting import refused_in_the_end

pytestmark = pytest.mark.either_database

SET = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks": "https://issuer.example/jwks"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(({name: SET[name]}, "go together") for name in SET),
        (SET | {"oidc_audience": ""}, "go together"),
        (SET | {"oidc_jwks": "http://issuer.example/jwks"}, "BLOBHUB_OIDC_JWKS: must be https"),
        *((SET | {"oidc_algorithms": names}, "BLOBHUB_OIDC_ALGORITHMS") for names in ("none", "RS256,HS256", "", "rs256")),
    ],
)
def test_a_wrong_setting_keeps_the_server_from_starting(settings: dict[str, str], said: str) -> None:
    with pytest.raises(StartError, match=said) as raised:
        configuration(Settings(**settings))
    assert "\n" not in str(raised.value)


def test_no_setting_is_no_issuer() -> None:
    assert configuration(Settings()) is None


UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
async def hub(tmp_path: Path, database_url: str, issuer: Issuer) -> AsyncIterator[Served]:
    """A server that takes the issuer's tokens, on each kind of database in turn."""
    async with served(tmp_path / "data", database_url, **issuer.settings) as made:
        yield made


@pytest.fixture
async def admin(hub: Served) -> AsyncIterator[Api]:
    """A client of it with the administrator's key."""
    async with connected(hub.address, hub.admin_key) as made:
        yield made


async def called(address: str, token: str) -> caller_pb2.Caller:
    """Who the server takes a token's bearer for."""
    async with connected(address, token) as api:
        return (await api.callers.GetCaller(caller_pb2.GetCallerRequest())).caller


async def the_users(admin: Api) -> list[user_pb2.User]:
    """The users whom tokens have made."""
    return list((await admin.users.ListUsers(user_pb2.ListUsersRequest(name_prefix="oidc-"))).users)


async def test_a_token_acts_as_its_user_until_it_ends(hub: Served, admin: Api, issuer: Issuer) -> None:
    ends = int(time.time()) + 300
    found = [await called(hub.address, issuer.token(kid, claims("kim", exp=ends, name="Kim Lee"))) for kid in SERVED]
    assert found[0] == found[1] == found[2]
    who = found[0]
    assert who.user_name == rules.user_name(ISSUER, "kim")
    assert (who.role, who.administrator, who.anonymous) == (access_pb2.ROLE_ADMIN, False, False)
    assert (who.api_key_id, who.parent_id, who.expire_time.seconds) == ("", "", ends)
    (user,) = await the_users(admin)
    assert (user.id, user.name, user.display_name) == (who.user_id, who.user_name, "Kim Lee")
    assert (user.issuer, user.subject, user.administrator) == (ISSUER, "kim", False)
    assert (await called(hub.address, issuer.token("rs", claims("lee")))).user_id != user.id


async def test_later_tokens_write_nothing(hub: Served, admin: Api, issuer: Issuer) -> None:
    await called(hub.address, issuer.token("rs", claims(name="Kim")))
    before = await the_users(admin)
    await called(hub.address, issuer.token("rs", claims(name="Lee")))
    assert await the_users(admin) == before


@pytest.mark.both_databases
async def test_first_calls_at_once_make_one_user(hub: Served, admin: Api, issuer: Issuer) -> None:
    tokens = [issuer.token("ed", claims(jti=f"{n}")) for n in range(20)]
    found = await asyncio.gather(*(called(hub.address, token) for token in tokens))
    assert [user.id for user in await the_users(admin)] == [found[0].user_id]
    assert len({who.user_id for who in found}) == 1


@pytest.mark.both_databases
async def test_a_subject_is_the_same_user_on_the_next_server(tmp_path: Path, database_url: str, issuer: Issuer) -> None:
    found = []
    for _ in range(2):
        async with served(tmp_path / "data", database_url, **issuer.settings) as server:
            found.append((await called(server.address, issuer.token())).user_id)
    assert found[0] == found[1]


@pytest.mark.both_databases
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_first_calls_at_once_on_two_servers_make_one_user(tmp_path: Path, database_url: str, issuer: Issuer) -> None:
    settings = issuer.settings | {"master_key_file": tmp_path / "master-key"}
    async with (
        served(tmp_path / "one", database_url, **settings) as one,
        served(tmp_path / "two", database_url, **settings) as two,
    ):
        calls = [called(at.address, issuer.token(payload=claims(jti=f"{n}"))) for n in range(10) for at in (one, two)]
        assert len({who.user_id for who in await asyncio.gather(*calls)}) == 1


async def test_wrong_tokens_read_like_a_wrong_key_and_make_no_user(hub: Served, admin: Api, issuer: Issuer) -> None:
    async def refusal(presented: str) -> tuple[object, ...]:
        async with connected(hub.address, presented) as api:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await api.callers.GetCaller(caller_pb2.GetCallerRequest())
        return raised.value.code(), raised.value.details(), raised.value.trailing_metadata()

    bad_key = await refusal(make_secret(os.urandom))
    assert bad_key[0] is UNAUTHENTICATED
    for what, make in WRONG.items():
        token = make()
        if len(token) < 8192:  # more than that gRPC does not let through
            assert await refusal(token) == bad_key, what
    assert await the_users(admin) == []
    assert issuer.asked == 1


async def test_a_flood_of_tokens_with_unknown_keys_asks_the_issuer_once(hub: Served, issuer: Issuer) -> None:
    async with connected(hub.address, None) as api:

        async def knock(token: str) -> None:
            header = ("authorization", f"Bearer {token}")
            call = api.callers.GetCaller(caller_pb2.GetCallerRequest(), metadata=[header])
            await expect_refusal(call, UNAUTHENTICATED, "UNAUTHENTICATED")

        await asyncio.gather(*(knock(signed(ES, "ES256", f"kid-{n}")) for n in range(200)))
    assert issuer.asked == 1


async def test_a_key_that_the_issuer_changes_is_taken_and_the_old_one_refused(
    hub: Served, issuer: Issuer, quick_keys: None
) -> None:
    old = issuer.token("rs")
    await called(hub.address, old)
    issuer.keys = {"new": ("RS256", rsa_key(1))}
    await called(hub.address, issuer.token("new"))
    assert issuer.asked == 2
    async with connected(hub.address, old) as api:  # what held is believed to hold for half a second
        await refused_in_the_end(
            lambda: api.callers.GetCaller(caller_pb2.GetCallerRequest()), UNAUTHENTICATED, "UNAUTHENTICATED"
        )


async def test_an_issuer_that_is_down_is_unavailable_and_keeps_nothing_from_starting(
    tmp_path: Path, database_url: str, issuer: Issuer, quick_keys: None
) -> None:
    issuer.stop()
    async with served(tmp_path / "data", database_url, **issuer.settings) as server:
        async with connected(server.address, issuer.token()) as api:
            call = api.callers.GetCaller(caller_pb2.GetCallerRequest())
            await expect_refusal(call, grpc.StatusCode.UNAVAILABLE, "ISSUER_UNAVAILABLE")
            issuer.start()
            await api.callers.GetCaller(caller_pb2.GetCallerRequest())
        assert (await called(server.address, server.admin_key)).administrator


async def member(admin: Api, who: caller_pb2.Caller, role: str = "ROLE_READ") -> None:
    """Make a user a member of acme."""
    request = member_pb2.CreateMemberRequest(parent="acme", user=f"@{who.user_name}", role=role)
    await admin.members.CreateMember(request)


async def test_a_tokens_user_has_the_roles_that_they_are_given(hub: Served, admin: Api, issuer: Issuer) -> None:
    await admin.session(flows.steps(1))
    who = await called(hub.address, issuer.token("rs"))
    get = organization_pb2.GetOrganizationRequest(organization="acme")
    async with connected(hub.address, issuer.token("rs")) as api:
        await expect_refusal(api.organizations.GetOrganization(get), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        await member(admin, who)
        await api.organizations.GetOrganization(get)
        create = blob_pb2.CreateBlobRequest(organization="acme", alias="mine", type=WORKFLOW)
        await expect_refusal(api.blobs.CreateBlob(create), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_a_disabled_users_token_is_refused(hub: Served, admin: Api, issuer: Issuer) -> None:
    who = await called(hub.address, issuer.token("rs"))
    async with connected(hub.address, issuer.token("rs")) as api:
        await api.callers.GetCaller(caller_pb2.GetCallerRequest())
        mask = FieldMask(paths=["disabled"])
        await admin.users.UpdateUser(user_pb2.UpdateUserRequest(user=who.user_id, update_mask=mask, disabled=True))
        await refused_in_the_end(
            lambda: api.callers.GetCaller(caller_pb2.GetCallerRequest()), UNAUTHENTICATED, "UNAUTHENTICATED"
        )


async def test_a_watch_ends_with_its_token(hub: Served, admin: Api, issuer: Issuer) -> None:
    session_id = await admin.session(flows.steps(1))
    await member(admin, await called(hub.address, issuer.token("rs")))
    async with connected(hub.address, issuer.token("rs", claims(exp=time.time() + 2))) as api:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id)):
                pass
    assert (raised.value.code(), reason_of(raised.value)) == (UNAUTHENTICATED, "UNAUTHENTICATED")
