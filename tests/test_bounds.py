"""Whom limits bind: nobody lifts what somebody of a higher rank has set. And the bounds that nobody sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import product

import acme
import grpc
import pytest
from acme import ADMIN, READ
from blobhub.v1 import limit_pb2
from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.clock import utc_now
from blobhub_server.errors import InvalidValue
from blobhub_server.platform.blobs.limits import Limits
from blobhub_server.platform.rules import api_key as api_key_rules
from blobhub_server.platform.rules import limit as rules
from blobhub_server.platform.rules import organization as organization_rules
from blobhub_server.platform.rules.limit import BLOB, DEFAULT, ORGANIZATION, LimitSetting, Rank
from calling import ask
from google.protobuf.struct_pb2 import Value
from google.rpc import error_details_pb2
from served import Api, Served

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
NAME = "workflow.definitions_per_revision"

PLACES = [
    (ORGANIZATION, Rank.SERVER),
    (ORGANIZATION, Rank.ORGANIZATION),
    (BLOB, Rank.SERVER),
    (BLOB, Rank.ORGANIZATION),
    (BLOB, Rank.BLOB),
]
"""Where something is set, and by whom."""

STATES = [
    [
        LimitSetting(source=source, rank=rank, value=value)
        for (source, rank), value in zip(PLACES, values, strict=True)
        if value is not None
    ]
    for values in product((None, 1, 2, 4), repeat=len(PLACES))
]
"""Everything that can be set, with values below, at and above a default of 2."""


async def test_the_value_of_a_limit_that_nobody_brings_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        await Limits(BlobTypes.load(), utc_now).value(None, "nothing", organization_id="", blob_id="")


def said(settings: Sequence[LimitSetting], source: str, rank: Rank) -> int | None:
    return next((item.value for item in settings if (item.source, item.rank) == (source, rank)), None)


def first(*values: int | None) -> int:
    return next((value for value in values if value is not None), 9)


def holds(settings: Sequence[LimitSetting]) -> int:
    return rules.effective(settings, 2).value


@pytest.mark.parametrize("role", Role)
def test_the_rank_is_the_servers_the_organizations_or_the_blobs(role: Role) -> None:
    assert rules.rank(administrator=True, on_organization=role) is Rank.SERVER
    expected = Rank.ORGANIZATION if role is Role.ADMIN else Rank.BLOB
    assert rules.rank(administrator=False, on_organization=role) is expected


def test_of_each_rank_the_nearest_holds_and_of_these_the_least() -> None:
    """What the server says of the blob stands in for what the organization says of all of its blobs."""
    for settings in STATES:
        by_server = said(settings, BLOB, Rank.SERVER)
        of_all = said(settings, ORGANIZATION, Rank.ORGANIZATION) if by_server is None else None
        expected = min(
            first(by_server, said(settings, ORGANIZATION, Rank.SERVER), 2),
            first(said(settings, BLOB, Rank.ORGANIZATION), of_all),
            first(said(settings, BLOB, Rank.BLOB)),
        )
        found = rules.effective(settings, 2)
        assert found.value == expected, settings
        assert found in settings or found == LimitSetting(source=DEFAULT, rank=Rank.SERVER, value=2)
        assert rules.effective(settings[::-1], 2) == found


def test_what_is_set_or_taken_back_never_lifts_what_a_higher_rank_has_set() -> None:
    for settings, (source, rank) in product(STATES, PLACES):
        higher = [item for item in settings if item.rank > rank]
        left = rules.remaining_settings(settings, source, rank)
        assert [item for item in left if item.rank > rank] == higher
        assert not any(item.source == source and item.rank <= rank for item in left)
        for value in (None, 0, 1, 2, 3, 4):
            now = left if value is None else [*left, LimitSetting(source=source, rank=rank, value=value)]
            assert rank is Rank.SERVER or holds(now) <= holds(higher)


def test_what_may_be_set_is_what_would_hold_then() -> None:
    for settings, (source, rank), value in product(STATES, PLACES, range(6)):
        asked = LimitSetting(source=source, rank=rank, value=value)
        left = rules.remaining_settings(settings, source, rank)
        if rank is Rank.SERVER or value <= holds(left):
            rules.require_settable(asked, settings, 2)
            assert holds([*left, asked]) == value or source == ORGANIZATION
        else:
            with pytest.raises(InvalidValue, match=f"at most {holds(left)};"):
                rules.require_settable(asked, settings, 2)


@pytest.fixture
async def people(server: Served, api: Api) -> AsyncIterator[tuple[Api, Api]]:
    """An admin of the organization, and one of its blob alone."""
    await acme.organization(api)
    await acme.blob(api)
    async with (
        acme.person(server, api, "ann", ("acme", ADMIN)) as ann,
        acme.person(server, api, "bob", ("acme/pipeline", ADMIN)) as bob,
    ):
        yield ann, bob


async def set_limit(api: Api, scope: str, value: int | None) -> int:
    """Set it, or take it back; return what holds then."""
    request = limit_pb2.UpdateLimitRequest(parent=scope, name=NAME, update_mask={"paths": ["value"]}, value=value)
    return (await api.limits.UpdateLimit(request)).limit.value


async def holding(api: Api, scope: str = "acme/pipeline") -> int:
    answer = await api.limits.GetLimits(limit_pb2.GetLimitsRequest(parent=scope))
    return next(limit.value for limit in answer.limits if limit.name == NAME)


@pytest.mark.either_database
async def test_what_the_page_tells_happens(api: Api, people: tuple[Api, Api]) -> None:
    """The table in docs/limits.md."""
    ann, bob = people
    assert await set_limit(api, "acme", 500) == 500
    await expect_refusal(set_limit(ann, "acme", 600), INVALID, "INVALID_VALUE")
    assert await holding(api) == 500
    assert await set_limit(ann, "acme/pipeline", 200) == 200
    await expect_refusal(set_limit(bob, "acme/pipeline", 300), INVALID, "INVALID_VALUE")
    assert await set_limit(bob, "acme/pipeline", 50) == 50
    assert await set_limit(api, "acme", 20) == 20
    assert await holding(api) == 20
    assert await set_limit(ann, "acme", None) == await set_limit(ann, "acme/pipeline", None) == 20
    assert await set_limit(api, "acme/pipeline", 1_000) == await holding(bob) == 1_000


@pytest.mark.either_database
@pytest.mark.parametrize("scope", ["acme", "acme/pipeline"])
@pytest.mark.parametrize("value", [7, 1_000])
async def test_an_administrators_setting_is_an_organizations_to_lower_and_not_to_lift(
    api: Api, people: tuple[Api, Api], scope: str, value: int
) -> None:
    ann, _ = people
    assert await set_limit(ann, scope, 3) == 3
    assert await set_limit(api, scope, value) == value
    assert await set_limit(ann, scope, None) == value
    await expect_refusal(set_limit(ann, scope, value + 1), INVALID, "INVALID_VALUE")
    for lower in (5, 6, value):
        assert await set_limit(ann, scope, lower) == lower
    assert await set_limit(ann, scope, 5) == await holding(api, scope) == 5
    assert await set_limit(ann, scope, None) == await holding(api, scope) == value
    assert await set_limit(ann, scope, 5) == 5
    assert await set_limit(api, scope, None) == 100


@pytest.mark.either_database
async def test_an_organizations_setting_is_a_blobs_to_lower_and_not_to_lift(people: tuple[Api, Api]) -> None:
    ann, bob = people
    scope = "acme/pipeline"
    assert await set_limit(bob, scope, 60) == 60
    assert await set_limit(ann, scope, 7) == 7
    assert await set_limit(bob, scope, None) == 7
    await expect_refusal(set_limit(bob, scope, 8), INVALID, "INVALID_VALUE")
    assert await set_limit(bob, scope, 3) == 3
    assert await set_limit(bob, scope, None) == 7
    assert await set_limit(ann, scope, None) == 100
    assert await set_limit(bob, scope, 60) == 60
    assert await set_limit(ann, "acme", 40) == await holding(bob) == 40
    assert await set_limit(ann, "acme", None) == 100
    assert await holding(bob) == 60


@pytest.mark.either_database
async def test_a_dead_key_does_not_count_and_a_rotated_one_does_while_it_works(api: Api) -> None:
    await acme.organization(api)
    request = limit_pb2.UpdateLimitRequest(parent="acme", name="organization.api_keys", value=1)
    await api.limits.UpdateLimit(request)
    expired = (await acme.key(api, "acme")).api_key
    await acme.revoke_key(api, (await acme.rotate_key(api, expired.id)).api_key.id)
    key = (await acme.key(api, "acme")).api_key
    check_full(
        await expect_refusal(acme.rotate_key(api, key.id, grace=60), EXHAUSTED, "LIMIT_EXCEEDED"),
        request.name,
        key.organization_id,
    )
    for _ in range(3):
        key = (await acme.rotate_key(api, key.id)).api_key
    await expect_refusal(acme.key(api, "acme"), EXHAUSTED, "LIMIT_EXCEEDED")
    request.value = 0
    await api.limits.UpdateLimit(request)
    key = (await acme.rotate_key(api, key.id)).api_key
    request.value = 2
    await api.limits.UpdateLimit(request)
    await expect_refusal(
        acme.rotate_key(api, (await acme.rotate_key(api, key.id, grace=60)).api_key.id, grace=60),
        EXHAUSTED,
        "LIMIT_EXCEEDED",
    )


def check_full(error: grpc.aio.AioRpcError, name: str, resource_id: str) -> None:
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    assert (info.metadata["limit"], info.metadata["resource"]) == (name, resource_id)


@pytest.mark.either_database
async def test_a_user_has_a_hundred_keys_that_work(api: Api) -> None:
    ann = await acme.user(api, "ann")
    dead = (await acme.key(api, "@ann")).api_key
    await acme.revoke_key(api, dead.id)
    tried = await asyncio.gather(*(acme.key(api, "@ann") for _ in range(110)), return_exceptions=True)
    made = [item.api_key for item in tried if not isinstance(item, grpc.aio.AioRpcError)]
    assert len(made) == api_key_rules.MAX_PERSONAL_KEYS == 100
    check_full(await expect_refusal(acme.key(api, "@ann"), EXHAUSTED, "LIMIT_EXCEEDED"), "user.api_keys", ann.id)
    await expect_refusal(acme.rotate_key(api, made[0].id, grace=60), EXHAUSTED, "LIMIT_EXCEEDED")
    await acme.rotate_key(api, made[0].id)
    await acme.revoke_key(api, made[1].id)
    await acme.rotate_key(api, made[2].id, grace=60)
    await expect_refusal(acme.key(api, "@ann"), EXHAUSTED, "LIMIT_EXCEEDED")
    await acme.user(api, "bob")
    assert await acme.key(api, "@bob", READ)


async def test_a_user_creates_so_many_organizations_whoever_administers_them(
    server: Served, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert organization_rules.MAX_CREATED == 1_000
    monkeypatch.setattr(organization_rules, "MAX_CREATED", 3)
    await acme.organization(api)
    async with acme.person(server, api, "ann", ("acme", ADMIN)) as ann:
        asked = (acme.organization(ann, f"ann-{number}") for number in range(10))
        tried = await asyncio.gather(*asked, return_exceptions=True)
        made = [item.alias for item in tried if not isinstance(item, grpc.aio.AioRpcError)]
        assert len(made) == 3
        await acme.member(ann, made[0], "administrator", ADMIN)
        error = await expect_refusal(acme.organization(ann, "another"), EXHAUSTED, "LIMIT_EXCEEDED")
        ann_id = (await acme.key(ann, "@me")).api_key.user_id
        check_full(error, "user.organizations", ann_id)
        await acme.delete_organization(ann, made[0])
        await acme.organization(ann, "another")
    assert await acme.organization(api, "another-ones")


@pytest.mark.either_database
async def test_fixed_limits_are_shown_with_what_is_held_and_cannot_be_set(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    await ask(api, "CreateCredential", parent="acme", alias="one", type="test", body={"user": "nobody"})
    for key in ("a", "b"):
        await ask(api, "CreateMetadata", parent="acme/pipeline", key=key, value=Value(number_value=1))
    found = [
        (parent, limit.name, limit.value, limit.held)
        for parent in ("acme", "acme/pipeline")
        for limit in (await ask(api, "GetLimits", parent=parent)).limits
        if limit.source == limit_pb2.LIMIT_SOURCE_FIXED
    ]
    assert found == [
        ("acme", "credentials", 1_000, 1),
        ("acme/pipeline", "credentials", 1_000, 0),
        ("acme/pipeline", "metadata.records_per_parent", 256, 2),
    ]
    for parent, name, *_ in found:
        error = await expect_refusal(ask(api, "UpdateLimit", parent=parent, name=name, value=1), INVALID, "INVALID_VALUE")
        assert "fixed" in error.details()
