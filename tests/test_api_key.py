"""API keys: of organizations, blobs and users; shown once, described, rotated, revoked; never stronger than their maker."""

from __future__ import annotations

import asyncio
import os
import uuid
from datetime import UTC, datetime, timedelta

import acme
import grpc
import pytest
from acme import ADMIN, READ, WRITE
from blobhub.v1 import access_pb2, api_key_pb2, caller_pb2, organization_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.db.migrations import migrate
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.opening import open_database
from blobhub_server.ids import Uuid7
from blobhub_server.platform.admission.usage import MIN_INTERVAL, KeyUsage
from blobhub_server.platform.bootstrap import bootstrap
from blobhub_server.platform.calls.audit import Audit
from blobhub_server.platform.rules import api_key as rules
from blobhub_server.platform.store import api_key as store
from google.rpc import error_details_pb2
from served import Api, Served, connected
from waiting import refused_in_the_end

pytestmark = pytest.mark.either_database

DENIED = grpc.StatusCode.PERMISSION_DENIED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def get(api: Api, key_id: str) -> api_key_pb2.ApiKey:
    return (await api.api_keys.GetApiKey(api_key_pb2.GetApiKeyRequest(api_key=key_id))).api_key


async def listed(api: Api, scope: str) -> list[api_key_pb2.ApiKey]:
    return list((await api.api_keys.ListApiKeys(api_key_pb2.ListApiKeysRequest(parent=scope))).api_keys)


async def describe(api: Api, key_id: str, description: str, **fields) -> api_key_pb2.ApiKey:
    request = api_key_pb2.UpdateApiKeyRequest(api_key=key_id, description=description, **fields)
    return (await api.api_keys.UpdateApiKey(request)).api_key


async def caller(server: Served, key: str) -> caller_pb2.Caller:
    """Who the server takes a key for."""
    async with connected(server.address, key) as api:
        return (await api.callers.GetCaller(caller_pb2.GetCallerRequest())).caller


@pytest.fixture
async def house(api: Api) -> Api:
    """`acme/pipeline`."""
    await acme.organization(api)
    await acme.blob(api)
    return api


@pytest.mark.both_databases
async def test_a_key_is_of_an_organization_a_blob_or_a_user(server: Served, house: Api) -> None:
    blob, ann = await acme.get_blob(house), await acme.user(house, "ann")
    expected = {
        "acme": (blob.organization_id, "", ""),
        blob.organization_id: (blob.organization_id, "", ""),
        "acme/pipeline": (blob.organization_id, blob.id, ""),
        blob.id: (blob.organization_id, blob.id, ""),
        "@ann": ("", "", ann.id),
        ann.id: ("", "", ann.id),
    }
    for scope, place in expected.items():
        made = await acme.key(house, scope, WRITE, description="for tests")
        record = made.api_key
        assert (record.organization_id, record.blob_id, record.user_id) == place
        assert (record.role, record.description) == (access_pb2.ROLE_WRITE, "for tests")
        assert not any(record.HasField(field) for field in ("expire_time", "revoke_time", "last_used_time"))
        assert made.key.startswith(f"bhk_{record.public_id}_")
        assert await get(house, record.id) == record
        assert (await caller(server, made.key)).api_key_id == record.id


async def test_only_a_user_can_have_a_key_that_is_confined_in_nothing(house: Api) -> None:
    for scope in ("acme", "acme/pipeline"):
        await expect_refusal(acme.key(house, scope, ADMIN), INVALID, "INVALID_VALUE")
    for role in ("ROLE_UNSPECIFIED", 5):
        await expect_refusal(acme.key(house, "acme", role), INVALID, "INVALID_REQUEST")
    for absent in ("no-such", "no-such/blob", "@nobody", str(uuid.uuid4())):
        await expect_refusal(acme.key(house, absent), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await expect_refusal(acme.key(house, "acme@1"), INVALID, "INVALID_REFERENCE")
    await acme.rename_organization(house, "acme", "new")
    for old in ("acme", "acme/pipeline"):
        await expect_refusal(acme.key(house, old), grpc.StatusCode.NOT_FOUND, "RENAMED")
        await expect_refusal(listed(house, old), grpc.StatusCode.NOT_FOUND, "RENAMED")


async def test_a_personal_key_acts_as_its_user_up_to_its_role(server: Served, house: Api) -> None:
    async with acme.person(server, house, "ann", ("acme", ADMIN)) as ann:
        made = {role: (await acme.key(ann, "@me", role)).key for role in (READ, WRITE, ADMIN)}
    async with connected(server.address, made[READ]) as reader:
        assert await acme.get_blob(reader)
        for call in (acme.blob(reader, "acme/mine"), acme.key(reader, "@me"), acme.organization(reader, "mine")):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")
    async with connected(server.address, made[WRITE]) as writer:
        await acme.blob(writer, "acme/mine")
        for call in (acme.update_blob(writer, alias="x"), acme.key(writer, "acme"), listed(writer, "@me")):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")
    async with connected(server.address, made[ADMIN]) as admin:
        assert await acme.key(admin, "acme", WRITE)
        assert await acme.organization(admin, "mine")


async def test_a_reading_key_of_an_administrator_administers_nothing(server: Served, house: Api) -> None:
    key = (await acme.key(house, "@me", READ)).key
    who = await caller(server, key)
    assert (who.user_name, who.role, who.administrator) == ("administrator", access_pb2.ROLE_READ, False)
    async with connected(server.address, key) as reader:
        assert await acme.get_blob(reader)
        for call in (acme.user(reader, "bob"), acme.entries(reader), acme.entries(reader, "acme")):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")


async def test_keys_are_an_admins_business(server: Served, house: Api, anonymous: Api) -> None:
    of_acme, of_blob, of_me = [(await acme.key(house, scope)).api_key.id for scope in ("acme", "acme/pipeline", "@me")]
    async with (
        acme.person(server, house, "ann", ("acme", WRITE)) as writer,
        acme.person(server, house, "bob", ("acme/pipeline", ADMIN)) as of_the_blob,
    ):
        for api, key_ids in ((writer, (of_acme, of_blob, of_me)), (of_the_blob, (of_acme, of_me))):
            for key_id in (*key_ids, str(uuid.uuid4())):
                for call in (
                    get(api, key_id),
                    describe(api, key_id, "x"),
                    acme.rotate_key(api, key_id),
                    acme.revoke_key(api, key_id),
                ):
                    await expect_refusal(call, DENIED, "PERMISSION_DENIED")
        assert [key.id for key in await listed(of_the_blob, "acme/pipeline")] == [of_blob]
        assert await acme.revoke_key(of_the_blob, of_blob)
        assert await acme.key(of_the_blob, "acme/pipeline", WRITE)
        for call in (acme.key(of_the_blob, "acme"), listed(of_the_blob, "acme"), listed(writer, "@bob")):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")
    for call in (acme.key(anonymous, "acme"), listed(anonymous, "acme"), get(anonymous, of_acme)):
        await expect_refusal(call, UNAUTHENTICATED, "UNAUTHENTICATED")


@pytest.mark.both_databases
async def test_keys_are_listed_by_what_they_are_of_oldest_first_revoked_ones_included(house: Api) -> None:
    made = {scope: [(await acme.key(house, scope)).api_key.id for _ in range(3)] for scope in ("acme", "acme/pipeline")}
    revoked = await acme.revoke_key(house, made["acme"][0])
    for scope, ids in made.items():
        assert [key.id for key in await listed(house, scope)] == ids
    assert (await listed(house, "acme"))[0] == revoked
    request = api_key_pb2.ListApiKeysRequest(parent="acme", page_size=2)
    first = await house.api_keys.ListApiKeys(request)
    request.page_token = first.next_page_token
    second = await house.api_keys.ListApiKeys(request)
    assert [key.id for key in (*first.api_keys, *second.api_keys)] == made["acme"]
    request.parent = "acme/pipeline"
    await expect_refusal(house.api_keys.ListApiKeys(request), INVALID, "INVALID_PAGE_TOKEN")


async def test_a_keys_description_changes_and_nothing_else_does(house: Api) -> None:
    before = (await acme.key(house, "acme", description="old")).api_key
    after = await describe(house, before.id, "new", etag=before.etag)
    assert after.etag != before.etag
    expected = api_key_pb2.ApiKey()
    expected.CopyFrom(before)
    expected.description, expected.etag = "new", after.etag
    assert after == expected == await get(house, before.id)
    await expect_refusal(describe(house, before.id, "late", etag=before.etag), grpc.StatusCode.ABORTED, "STALE_ETAG")
    await expect_refusal(describe(house, before.id, "x" * 257), INVALID, "INVALID_REQUEST")
    await expect_refusal(get(house, "not-an-id"), INVALID, "INVALID_REQUEST")


async def test_a_secret_is_shown_once_and_in_no_later_answer(house: Api) -> None:
    request = api_key_pb2.CreateApiKeyRequest(parent="acme", role=READ, request_id=str(uuid.uuid4()))
    made = await house.api_keys.CreateApiKey(request)
    rotation = api_key_pb2.RotateApiKeyRequest(api_key=made.api_key.id, request_id=str(uuid.uuid4()))
    rotated = await house.api_keys.RotateApiKey(rotation)
    again, rotated_again = await house.api_keys.CreateApiKey(request), await house.api_keys.RotateApiKey(rotation)
    assert (again.key, again.api_key) == ("", made.api_key)
    assert (rotated_again.key, rotated_again.api_key, rotated_again.rotated) == ("", rotated.api_key, rotated.rotated)
    later = [
        str(item) for item in (*await listed(house, "acme"), await get(house, rotated.api_key.id), again, rotated_again)
    ]
    for shown in (made.key, rotated.key):
        secret = shown.rsplit("_", 1)[1]
        assert not any(secret in text or secret[:22] in text for text in later)


async def test_a_rotated_key_works_until_its_grace_is_over(server: Served, house: Api) -> None:
    old = await acme.key(house, "acme/pipeline", WRITE, description="robot", expire_time=acme.after(3600))
    new = await acme.rotate_key(house, old.api_key.id, grace=2, etag=old.api_key.etag)
    assert new.key not in ("", old.key)
    for field in ("organization_id", "blob_id", "user_id", "role", "description", "expire_time"):
        assert getattr(new.api_key, field) == getattr(old.api_key, field), field
    assert new.api_key.id != old.api_key.id
    assert new.rotated.id == old.api_key.id
    assert new.rotated.etag != old.api_key.etag
    ends = new.rotated.expire_time.ToDatetime(UTC)
    assert ends < old.api_key.expire_time.ToDatetime(UTC)
    for made in (old, new):
        assert (await caller(server, made.key)).api_key_id == made.api_key.id
    await refused_in_the_end(lambda: caller(server, old.key), UNAUTHENTICATED, "UNAUTHENTICATED")
    assert await caller(server, new.key)
    await expect_refusal(acme.rotate_key(house, old.api_key.id), PRECONDITION, "KEY_ENDED")


async def test_a_rotation_without_grace_ends_the_key_at_once_and_grace_never_lengthens_it(
    server: Served, house: Api
) -> None:
    old = await acme.key(house, "acme")
    await acme.rotate_key(house, old.api_key.id)
    await refused_in_the_end(lambda: caller(server, old.key), UNAUTHENTICATED, "UNAUTHENTICATED")
    soon = await acme.key(house, "acme", expire_time=acme.after(600))
    assert (await acme.rotate_key(house, soon.api_key.id, grace=3600)).rotated.expire_time == soon.api_key.expire_time
    stale = acme.rotate_key(house, (await acme.key(house, "acme")).api_key.id, etag="stale")
    await expect_refusal(stale, grpc.StatusCode.ABORTED, "STALE_ETAG")
    for grace in (-1, 31 * 24 * 3600):
        await expect_refusal(acme.rotate_key(house, soon.api_key.id, grace=grace), INVALID, "INVALID_REQUEST")


async def test_a_key_is_revoked_for_good_and_twice_changes_nothing(server: Served, house: Api) -> None:
    made = await acme.key(house, "acme")
    assert await caller(server, made.key)
    revoked = await acme.revoke_key(house, made.api_key.id)
    assert revoked.HasField("revoke_time")
    assert revoked.etag != made.api_key.etag
    assert (await acme.revoke_key(house, made.api_key.id)).revoke_time == revoked.revoke_time
    assert (await acme.revoke_key(house, made.api_key.id)).etag == revoked.etag
    await refused_in_the_end(lambda: caller(server, made.key), UNAUTHENTICATED, "UNAUTHENTICATED")
    await expect_refusal(acme.rotate_key(house, made.api_key.id), PRECONDITION, "KEY_ENDED")
    assert (await describe(house, made.api_key.id, "no more")).description == "no more"


async def test_no_key_makes_one_that_outlives_it(server: Served, house: Api) -> None:
    mine = await acme.key(house, "@me", ADMIN, expire_time=acme.after(600))
    forever = (await acme.key(house, "acme")).api_key
    ends = mine.api_key.expire_time
    async with connected(server.address, mine.key) as api:
        inherited = await acme.key(api, "acme")
        assert inherited.api_key.expire_time == ends
        assert (await acme.key(api, "@me", ADMIN, expire_time=ends)).api_key.expire_time == ends
        shorter = acme.after(60)
        assert (await acme.key(api, "acme/pipeline", expire_time=shorter)).api_key.expire_time.seconds == shorter.seconds
        for call in (acme.key(api, "acme", expire_time=acme.after(700)), acme.rotate_key(api, forever.id)):
            error = await expect_refusal(call, DENIED, "KEY_TOO_STRONG")
            info = error_details_pb2.ErrorInfo()
            assert unpack(error, info)
            assert datetime.fromisoformat(info.metadata["expire_time"]) == ends.ToDatetime(UTC)
        assert (await acme.rotate_key(api, inherited.api_key.id)).api_key.expire_time == ends
    assert (await listed(house, "acme"))[0].id == forever.id
    assert (await get(house, forever.id)) == forever


@pytest.mark.parametrize("seconds", [-1, -(10**9)])
async def test_a_key_that_has_ended_already_is_not_made(house: Api, seconds: int) -> None:
    await expect_refusal(acme.key(house, "acme", expire_time=acme.after(seconds)), INVALID, "INVALID_VALUE")


async def test_a_time_that_is_none_is_refused(house: Api) -> None:
    beyond = acme.after(0)
    beyond.seconds = 10**12
    await expect_refusal(acme.key(house, "acme", expire_time=beyond), INVALID, "INVALID_VALUE")


@pytest.mark.both_databases
async def test_when_a_key_was_used_is_written_without_moving_its_etag(server: Served, house: Api) -> None:
    made = await acme.key(house, "acme")
    assert not (await get(house, made.api_key.id)).HasField("last_used_time")
    async with connected(server.address, made.key) as scoped:
        await acme.get_blob(scoped)
        listing = organization_pb2.ListOrganizationsRequest()
        while not (used := await get(house, made.api_key.id)).HasField("last_used_time"):
            await scoped.organizations.ListOrganizations(listing)
            await asyncio.sleep(0.2)
    assert used.last_used_time.ToDatetime(UTC) >= made.api_key.create_time.ToDatetime(UTC)
    assert used.etag == made.api_key.etag


@pytest.mark.both_databases
async def test_the_use_of_a_key_is_written_at_most_once_a_minute(database_url: str) -> None:
    start = clock = datetime(2026, 1, 1, tzinfo=UTC)
    await migrate(database_url, ())
    db = await open_database(database_url)
    audit = Audit(db, Doorbell(db), lambda: clock, Uuid7())
    key = await bootstrap(db, audit, lambda: clock, Uuid7(), os.urandom, None)
    public_id, _ = rules.parse(key or "") or ("", b"")
    usage, seen = KeyUsage(db, lambda: clock), []
    for _ in range(30):
        async with db.read() as tx:
            record = await store.get_by_public_id(tx, public_id)
        seen.append(record and record.last_used_time)
        usage.record_use(record.id if record else "")
        async with usage.writing():
            """What is left is written on leaving."""
        clock += timedelta(seconds=5)
    await db.close()
    assert seen[0] is None
    assert sorted(set(seen[1:])) == [start, start + MIN_INTERVAL, start + 2 * MIN_INTERVAL]
