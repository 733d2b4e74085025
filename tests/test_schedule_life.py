"""What becomes of schedules over the revisions of their blob, and on whose behalf they fire."""

from __future__ import annotations

import asyncio
from pathlib import Path

import acme
import grpc
import pytest
import schedules
from acme import ADMIN, READ, WRITE
from blobhub.v1 import schedule_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.platform.blobs.contents import Contents
from blobhub_server.scheduler.timetable import TZDATA_VERSION
from calling import ask, outcome
from databases import execute, select
from schedules import DAILY, DEFAULT, DRAFT, NIGHTLY, ONCE, TARGET, create, get, house, listed, update
from served import Api, Served, connected, served
from waiting import until

pytestmark = pytest.mark.either_database

INVALID, DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED
CONDITION = grpc.StatusCode.FAILED_PRECONDITION
PAUSED, ACTIVE = schedule_pb2.SCHEDULE_STATE_PAUSED, schedule_pb2.SCHEDULE_STATE_ACTIVE
EVENING = DAILY | {"cron_expression": "0 21 * * ? *"}


async def move_default(api: Api, version: str) -> None:
    await acme.update_blob(api, NIGHTLY, default_revision=version)


async def test_commit_and_publication_change_nothing_of_what_fires(api: Api) -> None:
    await house(api)
    made = await create(api)
    await acme.commit(api, DRAFT)
    committed = await get(api, f"{NIGHTLY}@latest/report")
    assert (committed.id, committed.next_nominal_time, committed.armed) == (made.id, made.next_nominal_time, True)
    await acme.branch(api, "latest", NIGHTLY)
    await schedules.publish(api)
    assert (await acme.get_blob(api, NIGHTLY)).default_revision_id != made.revision_id
    published = await get(api, f"{DEFAULT}/report")
    assert (published.id, published.next_nominal_time, published.armed) == (made.id, made.next_nominal_time, True)
    assert (published.etag, published.actor_id, published.digest) == (made.etag, made.actor_id, made.digest)


async def test_an_edit_of_a_draft_that_is_not_the_default_arms_nothing(api: Api) -> None:
    await house(api)
    made = await create(api)
    await schedules.publish(api)
    await acme.branch(api, blob=NIGHTLY)
    changed = await update(api, **{"cron_expression": "0 21 * * ? *"})
    assert (changed.id, changed.armed, changed.HasField("next_nominal_time")) == (made.id, False, False)
    new = await create(api, "new", ONCE)
    assert (new.armed, new.HasField("next_nominal_time")) == (False, False)
    armed = await get(api, f"{DEFAULT}/report")
    assert (armed.armed, armed.next_nominal_time) == (True, made.next_nominal_time)
    assert (await get(api, made.id)).revision_id == armed.revision_id, "an id means the default revision's"
    assert (await get(api, new.id)).revision_id == changed.revision_id, "or else the one that it was saved in"
    assert [item.schedule_alias for item in (await schedules.upcoming(api, page_size=2)).firings] == ["report"] * 2


async def test_an_edit_of_the_default_draft_is_at_work_at_once(api: Api) -> None:
    await house(api)
    made = await create(api)
    changed = await update(api, **{"cron_expression": "0 21 * * ? *"})
    assert (changed.armed, changed.id) == (True, made.id)
    assert changed.next_nominal_time != made.next_nominal_time
    await schedules.delete(api, f"{DRAFT}/report")
    assert list((await schedules.upcoming(api)).firings) == []
    again = await create(api)
    assert (again.id, again.next_nominal_time) == (made.id, made.next_nominal_time), "an alias has one id for good"


@pytest.mark.both_databases
async def test_when_the_default_moves_the_same_go_on_the_new_begin_and_the_missing_stop(api: Api) -> None:
    """And the other way round when it moves back."""
    await house(api)
    first = {alias: await create(api, alias, spec) for alias, spec in (("same", DAILY), ("changed", DAILY), ("gone", ONCE))}
    await schedules.publish(api)
    await acme.branch(api, blob=NIGHTLY)
    await update(api, f"{DRAFT}/changed", **{"cron_expression": "0 21 * * ? *"})
    await schedules.delete(api, f"{DRAFT}/gone")
    await create(api, "new", EVENING)
    await acme.commit(api, DRAFT)

    async def armed(revision: str) -> dict[str, schedule_pb2.Schedule]:
        found = {alias: await get(api, f"{revision}/{alias}") for alias in await listed(api, revision)}
        return {alias: schedule for alias, schedule in found.items() if schedule.armed}

    assert set(await armed(f"{NIGHTLY}@1")) == {"same", "changed", "gone"}
    assert set(await armed(f"{NIGHTLY}@latest")) == {"same"}
    await move_default(api, "latest")
    now = await armed(DEFAULT)
    assert set(now) == {"same", "changed", "new"}
    assert now["same"].next_nominal_time == first["same"].next_nominal_time
    assert now["changed"].next_nominal_time == now["new"].next_nominal_time != first["changed"].next_nominal_time
    gone = await get(api, f"{NIGHTLY}@1/gone")
    assert (gone.id, gone.armed, gone.HasField("next_nominal_time")) == (first["gone"].id, False, False)
    assert {item.schedule_alias for item in (await schedules.upcoming(api)).firings} == {"same", "changed", "new"}
    await move_default(api, "1")
    back = await armed(DEFAULT)
    assert {alias: schedule.next_nominal_time for alias, schedule in back.items()} == {
        alias: schedule.next_nominal_time for alias, schedule in first.items()
    }
    assert not (await get(api, f"{NIGHTLY}@latest/new")).armed


@pytest.mark.both_databases
async def test_a_schedule_is_paused_and_resumed_on_a_frozen_revision(server: Served, api: Api) -> None:
    await house(api)
    made = await create(api)
    digest = (await schedules.publish(api)).digest
    async with acme.person(server, api, "ann", ("acme/nightly", WRITE)) as ann:
        paused = await schedules.pause(ann, f"{DEFAULT}/report", "The vendor is down")
    assert (paused.state, paused.pause.note, paused.armed) == (PAUSED, "The vendor is down", True)
    assert paused.pause.actor_id != made.actor_id
    assert not paused.HasField("next_nominal_time")
    assert list((await schedules.upcoming(api)).firings) == []
    await acme.branch(api, blob=NIGHTLY)
    assert (await get(api, f"{DRAFT}/report")).state == PAUSED, "a pause is a schedule's over all revisions"
    await schedules.publish(api)
    assert not (await get(api, f"{DEFAULT}/report")).HasField("next_nominal_time")
    resumed = await schedules.resume(api, f"{DEFAULT}/report")
    assert (resumed.state, resumed.HasField("pause"), resumed.next_nominal_time) == (ACTIVE, False, made.next_nominal_time)
    assert (await acme.get_revision(api, f"{NIGHTLY}@1")).digest == digest


async def test_a_schedule_is_disabled_and_enabled_on_a_frozen_revision(api: Api) -> None:
    await house(api)
    made = await create(api)
    await schedules.publish(api)
    disabled = await schedules.disable(api, f"{DEFAULT}/report")
    assert (disabled.enabled, disabled.state, disabled.HasField("next_nominal_time")) == (False, ACTIVE, False)
    enabled = await schedules.enable(api, f"{DEFAULT}/report")
    assert (enabled.enabled, enabled.next_nominal_time) == (True, made.next_nominal_time)
    assert (await schedules.enable(api, f"{DEFAULT}/report")).etag == enabled.etag, "it was enabled already"


async def test_a_schedule_that_no_revision_has_any_more_is_neither_paused_nor_disabled_when_it_is_created_again(
    api: Api,
) -> None:
    await house(api)
    for switch in (schedules.pause, schedules.disable):
        made = await create(api)
        await switch(api, f"{DRAFT}/report")
        await schedules.delete(api)
        again = await create(api)
        assert (again.id, again.enabled, again.state, again.HasField("pause")) == (made.id, True, ACTIVE, False)
        assert again.next_nominal_time == made.next_nominal_time
        await schedules.delete(api)


async def test_a_schedule_that_another_revision_has_is_still_paused_when_it_is_created_again(api: Api) -> None:
    await house(api)
    await create(api)
    await schedules.publish(api)
    await schedules.pause(api, f"{DEFAULT}/report")
    await schedules.disable(api, f"{DEFAULT}/report")
    await acme.branch(api, blob=NIGHTLY)
    await schedules.delete(api)
    again = await create(api)
    assert (again.enabled, again.state) == (False, PAUSED)


async def test_a_schedule_acts_for_who_saved_it_last_whoever_commits_and_publishes(server: Served, api: Api) -> None:
    await house(api)
    roles = [("acme/nightly", WRITE), ("acme/pipeline", WRITE)]
    async with acme.person(server, api, "ann", *roles) as ann, acme.person(server, api, "bob", *roles) as bob:
        made = await create(ann)
        await schedules.publish(bob)
        await acme.branch(bob, blob=NIGHTLY)
        assert (await get(api, f"{DRAFT}/report")).actor_id == made.actor_id
        changed = await update(bob, description="Mine now")
        assert changed.actor_id not in (made.actor_id, "")
        assert (await get(api, f"{DEFAULT}/report")).actor_id == made.actor_id
        await schedules.pause(bob, f"{DEFAULT}/report")
        assert (await get(api, f"{DEFAULT}/report")).actor_id == made.actor_id


async def test_a_schedule_of_a_removed_member_is_reassigned_and_stays_so_wherever_its_content_is(
    server: Served, api: Api
) -> None:
    await house(api)
    roles = [("acme/nightly", WRITE), ("acme/pipeline", WRITE)]
    async with acme.person(server, api, "ann", *roles) as ann:
        made = await create(ann)
        await schedules.publish(api)
        await acme.branch(api, blob=NIGHTLY)
        key = await acme.key(api, "acme/pipeline", WRITE)
        await expect_refusal(
            schedules.reassign(ann, f"{DEFAULT}/report", api_key=key.api_key.id), DENIED, "PERMISSION_DENIED"
        )
        reassigned = await schedules.reassign(api, f"{DEFAULT}/report", api_key=key.api_key.id)
        assert (reassigned.actor_id, reassigned.digest) == (key.api_key.id, made.digest)
        assert (await get(api, f"{DRAFT}/report")).actor_id == key.api_key.id
        reader = await acme.key(api, "acme/pipeline", READ)
        for actor in (reader.api_key.id, made.id):
            await expect_refusal(schedules.reassign(api, made.id, api_key=actor), INVALID, "INVALID_VALUE")
        assert (await update(ann, description="Mine again")).actor_id == made.actor_id


async def test_an_admin_of_the_scheduler_alone_has_nobody_act_where_they_may_not(server: Served, api: Api) -> None:
    await house(api)
    made = await create(api)
    key = await acme.key(api, "acme/pipeline", WRITE)
    async with acme.person(server, api, "ann", ("acme/nightly", ADMIN), ("acme/pipeline", READ)) as ann:
        call = schedules.reassign(ann, made.id, api_key=key.api_key.id)
        error = await expect_refusal(call, DENIED, "PERMISSION_DENIED")
        assert "target" in (error.details() or "")


async def test_only_who_may_write_to_the_target_saves_a_schedule(server: Served, api: Api) -> None:
    await house(api)
    made = await create(api, "old")
    async with acme.person(server, api, "ann", ("acme/nightly", ADMIN), ("acme/pipeline", READ)) as ann:
        for call in (create(ann), update(ann, f"{DRAFT}/old", description="x"), update(ann, made.id, timezone="UTC")):
            error = await expect_refusal(call, DENIED, "PERMISSION_DENIED")
            assert "target" in (error.details() or "")
        hidden = DAILY | {"invocation_target": {"revision": "acme/secret", "definition": "workflow"}}
        error = await expect_refusal(create(ann, spec=hidden), DENIED, "PERMISSION_DENIED")
        await acme.blob(api, "acme/secret")
        same = await expect_refusal(create(ann, spec=hidden), DENIED, "PERMISSION_DENIED")
        assert error.details() == same.details(), "what is hidden reads like what is absent"


async def test_a_target_is_settled_when_it_is_saved(api: Api) -> None:
    """So a blob that is renamed is still the target, and a revision that is pinned stays."""
    await house(api)
    snapshot = await api.publish()
    target = {"revision": "acme/pipeline@1", "definition": "workflow"}
    made = await create(api, spec=DAILY | {"invocation_target": target})
    assert (made.target_revision_id, made.spec.invocation_target.revision) == (snapshot.id, "acme/pipeline@1")
    by_id = await create(api, "by-id", DAILY | {"invocation_target": target | {"revision": snapshot.id}})
    assert by_id.target_revision_id == snapshot.id
    await acme.update_blob(api, alias="flow")
    assert (await update(api, description="x")).target_blob_id == made.target_blob_id
    await expect_refusal(create(api, "late"), grpc.StatusCode.NOT_FOUND, "RENAMED")


async def test_a_revision_that_a_schedule_pins_is_not_discarded(api: Api) -> None:
    await house(api)
    commit = await acme.commit(api)
    await acme.branch(api, "latest")
    await acme.update_blob(api, default_revision="draft")
    made = await create(api, spec=DAILY | {"invocation_target": TARGET | {"revision": commit.id}})
    assert made.target_revision_id == commit.id
    found = (await ask(api, "GetRevisionDependents", revision=commit.id)).dependents
    assert [(item.count, list(item.ids)) for item in found if item.kind == "schedules that invoke it"] == [(1, [])]
    error = await expect_refusal(ask(api, "DiscardRevision", revision=commit.id), CONDITION, "REVISION_IN_USE")
    assert "1 schedules that invoke it" in (error.details() or "")
    await schedules.delete(api, f"{DRAFT}/report")
    found = (await ask(api, "GetRevisionDependents", revision=commit.id)).dependents
    assert "schedules that invoke it" not in {item.kind for item in found}


@pytest.mark.both_databases
async def test_a_revision_is_kept_while_any_revision_of_a_scheduler_has_a_schedule_that_pins_it(api: Api) -> None:
    """For each can become the default one: a draft that is not yet, and a snapshot that was."""
    await house(api)
    await create(api, "other")
    await schedules.publish(api)
    (commit,) = await commits(api, 1)
    await acme.branch(api, blob=NIGHTLY)
    made = await create(api, spec=DAILY | {"invocation_target": TARGET | {"revision": commit}})
    assert not made.armed
    await expect_refusal(ask(api, "DiscardRevision", revision=commit), CONDITION, "REVISION_IN_USE")
    await schedules.publish(api)
    await acme.branch(api, blob=NIGHTLY)
    assert (await update(api, invocation_target=TARGET)).target_revision_id == ""
    await schedules.publish(api)
    await expect_refusal(ask(api, "DiscardRevision", revision=commit), CONDITION, "REVISION_IN_USE")
    found = (await ask(api, "GetRevisionDependents", revision=commit)).dependents
    assert [item.count for item in found if item.kind == "schedules that invoke it"] == [1]
    await move_default(api, "2")
    assert (await get(api, f"{DEFAULT}/report")).armed


async def test_a_revision_is_let_go_with_the_draft_or_the_blob_whose_schedule_pins_it(api: Api) -> None:
    await house(api)
    await create(api, "other")
    await schedules.publish(api)
    first, second = await commits(api, 2)
    draft = await acme.branch(api, blob=NIGHTLY)
    await create(api, "one", DAILY | {"invocation_target": TARGET | {"revision": first}})
    await ask(api, "DiscardRevision", revision=draft.id)
    await ask(api, "DiscardRevision", revision=first)
    await acme.branch(api, blob=NIGHTLY)
    await create(api, "two", DAILY | {"invocation_target": TARGET | {"revision": second}})
    await expect_refusal(ask(api, "DiscardRevision", revision=second), CONDITION, "REVISION_IN_USE")
    await acme.delete_blob(api, NIGHTLY, cascade=True)
    await ask(api, "DiscardRevision", revision=second)


async def commits(api: Api, count: int) -> list[str]:
    """Commits of the workflow that nothing depends on."""
    base = (await acme.commit(api)).id
    drafts = [await acme.branch(api, base) for _ in range(count)]
    return [(await acme.commit(api, f"acme/pipeline@{draft.id}")).id for draft in drafts]


@pytest.mark.both_databases
async def test_a_revision_that_is_discarded_while_a_schedule_is_saved_that_pins_it_is_not_there_for_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house(api)
    (commit,) = await commits(api, 1)
    upload = Contents.upload

    async def discard_first(contents: Contents, data: bytes) -> tuple[str, int]:
        await ask(api, "DiscardRevision", revision=commit)
        return await upload(contents, data)

    monkeypatch.setattr(Contents, "upload", discard_first)
    pinned = create(api, spec=DAILY | {"invocation_target": TARGET | {"revision": commit}})
    await expect_refusal(pinned, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert await schedules.listed(api) == []


@pytest.mark.both_databases
async def test_of_a_discard_and_a_schedule_that_pins_the_same_revision_at_once_one_is_refused(api: Api) -> None:
    await house(api)
    found = await commits(api, 8)

    async def pin(number: int, commit: str) -> str:
        spec = DAILY | {"invocation_target": TARGET | {"revision": commit}}
        return await outcome(create(api, f"each-{number}", spec))

    pins = [pin(number, commit) for number, commit in enumerate(found)]
    discards = [outcome(ask(api, "DiscardRevision", revision=commit)) for commit in found]
    outcomes = await asyncio.gather(*pins, *discards)
    pairs = list(zip(outcomes[: len(found)], outcomes[len(found) :], strict=True))
    for made in pairs:
        assert made in {("OK", "REVISION_IN_USE"), ("NOT_FOUND", "OK"), ("PERMISSION_DENIED", "OK")}, pairs


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_times_that_were_reckoned_with_other_zone_data_are_reckoned_anew_at_a_start(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = await request.getfixturevalue("fresh_postgres")() if kind == "postgresql" else None
    async with served(tmp_path, url) as server, connected(server.address, server.admin_key) as api:
        await house(api)
        made = await create(api)
        database, key = server.settings.url, server.admin_key
    wrong = "next_nominal_time = next_nominal_time + 3600000000, next_due_time = next_due_time + 3600000000"
    await execute(database, f"UPDATE schedules SET tzdata = '2020a', {wrong}")
    async with served(tmp_path, url) as server, connected(server.address, key) as api:

        async def is_reckoned() -> bool:
            return (await get(api, made.id)).next_due_time == made.next_due_time

        await until(is_reckoned)
        assert [tuple(row) for row in await select(database, "SELECT DISTINCT tzdata FROM schedules")] == [(TZDATA_VERSION,)]
