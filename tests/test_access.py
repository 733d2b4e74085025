"""Access: the decision as a table, keys, and what a key opens."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import flows
import grpc
import pytest
from blobhub.v1 import access_pb2, api_key_pb2, blob_pb2, caller_pb2, component_pb2, organization_pb2
from blobhub_server.blobtypes.access import ANONYMOUS, Caller, Place, Role
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.errors import PermissionDenied
from blobhub_server.platform.rules.access import REQUIRED_ROLES, Permission, held_role, require_role
from blobhub_server.platform.rules.api_key import make_secret, parse
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from served import WORKFLOW, Api, Served, connected
from waiting import refused_in_the_end

DENIED = grpc.StatusCode.PERMISSION_DENIED
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED

USER = Caller(key_id="k", user_id="u", role=Role.ADMIN)
ORG_KEY = Caller(key_id="k", organization_id="o", role=Role.WRITE)
BLOB_KEY = Caller(key_id="k", organization_id="o", blob_id="b", role=Role.WRITE)


@pytest.mark.parametrize(
    ("caller", "organization_id", "blob_id", "membership", "public", "expected"),
    [
        (ANONYMOUS, "o", "b", Role.NONE, False, Role.NONE),
        (ANONYMOUS, "o", "b", Role.NONE, True, Role.READ),
        (USER, "o", "b", Role.NONE, False, Role.NONE),
        (USER, "o", "b", Role.WRITE, False, Role.WRITE),
        (USER, "o", "b", Role.NONE, True, Role.READ),
        (ORG_KEY, "o", "b", Role.NONE, False, Role.WRITE),
        (ORG_KEY, "o", None, Role.NONE, False, Role.WRITE),
        (ORG_KEY, "other", "b", Role.NONE, False, Role.NONE),
        (BLOB_KEY, "o", "b", Role.NONE, False, Role.WRITE),
        (BLOB_KEY, "o", "other", Role.NONE, False, Role.NONE),
        (BLOB_KEY, "o", None, Role.NONE, False, Role.NONE),
        (BLOB_KEY, "o", "other", Role.NONE, True, Role.READ),
        (replace(USER, role=Role.WRITE), "o", "b", Role.ADMIN, False, Role.WRITE),
        (replace(USER, role=Role.READ), "o", "b", Role.ADMIN, True, Role.READ),
        (USER, "", None, Role.NONE, False, Role.NONE),
        (ANONYMOUS, "", None, Role.NONE, False, Role.NONE),
        (ORG_KEY, "", None, Role.NONE, False, Role.NONE),
        (Caller(key_id="k", user_id="u", administrator=True), "o", "b", Role.NONE, False, Role.ADMIN),
        (Caller(key_id="k", user_id="u", administrator=True), "", None, Role.NONE, False, Role.ADMIN),
    ],
)
def test_the_effective_role(caller, organization_id, blob_id, membership, public, expected) -> None:
    place = Place(organization_id=organization_id, blob_id=blob_id, public=public)
    role = held_role(caller, place, membership)
    for permission, needed in REQUIRED_ROLES.items():
        for public_read in (False, True) if permission is Permission.READ else (False,):
            counts = max(role, Role.READ) if public_read and public else role
            with nullcontext() if counts >= needed else pytest.raises(PermissionDenied):
                require_role(role, place, permission, public_read=public_read)
    assert (max(role, Role.READ) if public else role) == expected


@given(st.binary(min_size=32, max_size=32), st.integers(0, 45), st.characters())
def test_a_key_with_a_changed_character_is_not_a_key(noise: bytes, place: int, character: str) -> None:
    key = make_secret(lambda size: noise[:size])
    assert parse(key) is not None
    changed = key[:place] + character + key[place + 1 :]
    if changed != key:
        assert parse(changed) is None


def test_keys_differ() -> None:
    assert len({make_secret(os.urandom) for _ in range(100)}) == 100


async def scoped(api: Api, scope: str, role: str = "ROLE_READ", **fields) -> api_key_pb2.CreateApiKeyResponse:
    return await api.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(parent=scope, role=role, **fields))


@pytest.fixture
async def two_blobs(api: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    for alias in ("one", "two"):
        await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias=alias, type=WORKFLOW))


@pytest.mark.either_database
async def test_callers_are_told_who_they_are(server: Served, api: Api, anonymous: Api, two_blobs: None) -> None:
    me = (await api.callers.GetCaller(caller_pb2.GetCallerRequest())).caller
    assert me.administrator
    assert me.user_id
    assert (await anonymous.callers.GetCaller(caller_pb2.GetCallerRequest())).caller.anonymous
    made = await scoped(api, "acme/one")
    async with connected(server.address, made.key) as other:
        found = (await other.callers.GetCaller(caller_pb2.GetCallerRequest())).caller
    assert (found.api_key_id, found.parent_id, found.role) == (
        made.api_key.id,
        made.api_key.blob_id,
        access_pb2.ROLE_READ,
    )


@pytest.mark.either_database
async def test_a_blobs_key_opens_that_blob_alone(server: Served, api: Api, two_blobs: None) -> None:
    made = await scoped(api, "acme/one", "ROLE_WRITE")
    async with connected(server.address, made.key) as other:
        await other.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/one"))
        await other.put(flows.steps(1), revision="acme/one@draft")
        for call in (
            other.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/two")),
            other.organizations.GetOrganization(organization_pb2.GetOrganizationRequest(organization="acme")),
            other.blobs.ListBlobs(blob_pb2.ListBlobsRequest(organization="acme")),
            other.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="mine")),
            scoped(other, "acme/one"),
        ):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")


@pytest.mark.either_database
async def test_a_reading_key_writes_nothing(server: Served, api: Api, two_blobs: None) -> None:
    made = await scoped(api, "acme")
    async with connected(server.address, made.key) as other:
        await other.blobs.ListBlobs(blob_pb2.ListBlobsRequest(organization="acme"))
        await expect_refusal(other.put(flows.steps(1), revision="acme/one@draft"), DENIED, "PERMISSION_DENIED")
        listed = await other.organizations.ListOrganizations(organization_pb2.ListOrganizationsRequest())
        assert [item.alias for item in listed.organizations] == ["acme"]


async def test_a_revoked_key_is_refused(server: Served, api: Api, two_blobs: None) -> None:
    made = await scoped(api, "acme")
    async with connected(server.address, made.key) as other:
        await other.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/one"))
        revoked = await api.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=made.api_key.id))
        assert revoked.api_key.HasField("revoke_time")
        await refused_in_the_end(
            lambda: other.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/one")), UNAUTHENTICATED, "UNAUTHENTICATED"
        )
    listed = await api.api_keys.ListApiKeys(api_key_pb2.ListApiKeysRequest(parent="acme"))
    assert listed.api_keys == [revoked.api_key]


async def test_an_expired_key_is_refused(server: Served, api: Api, two_blobs: None) -> None:
    soon = Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(seconds=1.5))
    made = await scoped(api, "acme", expire_time=soon)
    async with connected(server.address, made.key) as other:
        await refused_in_the_end(
            lambda: other.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/one")), UNAUTHENTICATED, "UNAUTHENTICATED"
        )
    await expect_refusal(scoped(api, "acme", expire_time=soon), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")


@pytest.mark.either_database
async def test_a_key_is_shown_once_even_to_the_same_request(api: Api, two_blobs: None) -> None:
    request_id = "0b6d3a54-5b0c-4d6e-9f2e-0f6f1f1d2c3b"
    first = await scoped(api, "acme", request_id=request_id)
    again = await scoped(api, "acme", request_id=request_id)
    assert first.key.startswith("bhk_")
    assert again.key == ""
    assert again.api_key == first.api_key


@pytest.mark.either_database
@pytest.mark.parametrize("key", ["", "nonsense", "bhk_x_y", "bhk_AAAAAAAAAAAA_BBBBBBBBBBBBBBBBBBBBBBCCCCCC"])
async def test_a_malformed_key_is_refused_everywhere(server: Served, key: str) -> None:
    async with connected(server.address, None) as api:
        for header in (("authorization", f"Bearer {key}"), ("x-api-key", key)):
            call = api.components.ListComponents(component_pb2.ListComponentsRequest(), metadata=[header])
            await expect_refusal(call, UNAUTHENTICATED, "UNAUTHENTICATED")


@pytest.mark.either_database
async def test_a_key_is_taken_from_either_header_and_two_must_agree(server: Served) -> None:
    async with connected(server.address, None) as api:
        bearer, plain = ("authorization", f"Bearer {server.admin_key}"), ("x-api-key", server.admin_key)
        for headers in ([bearer], [plain], [bearer, plain]):
            answer = await api.callers.GetCaller(caller_pb2.GetCallerRequest(), metadata=headers)
            assert answer.caller.administrator
        other = ("x-api-key", make_secret(os.urandom))
        call = api.callers.GetCaller(caller_pb2.GetCallerRequest(), metadata=[bearer, other])
        await expect_refusal(call, UNAUTHENTICATED, "UNAUTHENTICATED")
