"""Schedules: what is stored of them comes back, and what cannot be one is refused at its place."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import acme
import grpc
import pytest
import schedules
from blobhub.v1 import schedule_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from calling import outcome
from databases import select
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from scale import SHARED_FIXTURES, scaled
from schedules import DAILY, DEFAULT, DRAFT, NIGHTLY, ONCE, TARGET, create, get, house, listed, update
from served import Api, Served
from waiting import until

pytestmark = pytest.mark.either_database

INVALID, DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED
NOT_FOUND, CONDITION = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION

FULL: dict[str, Any] = DAILY | {
    "start_date": "2026-01-01",
    "end_date": "2149-12-31T23:59:59+01:00",
    "description": "What  the night has brought ",
    "input_data": [
        {"alias": "text", "value_json": '{ "b" : 1.0e0,\n "a": [ 18446744073709551615 ] }'},
        {"alias": "value", "value": {"string_value": "plain"}},
        {"alias": "since", "value_json": '{"type": "template", "template": "{{ previous_time }}"}'},
    ],
    "catch_up": "CATCH_UP_POLICY_ALL",
    "catch_up_window": {"seconds": 7200, "nanos": 1000},
    "overlap": "OVERLAP_POLICY_QUEUE_ONE",
    "jitter": {"seconds": 30},
}
"""A spec with everything in it."""


async def refused_fields(call: Any) -> dict[str, str]:
    """What a refused schedule is told: message by field."""
    error = await expect_refusal(call, INVALID, "INVALID_SCHEDULE")
    bad = error_details_pb2.BadRequest()
    assert unpack(error, bad)
    return {violation.field: violation.description for violation in bad.field_violations}


@pytest.mark.parametrize("spec", [DAILY, ONCE, FULL], ids=["daily", "once", "full"])
async def test_a_schedule_comes_back_as_it_was_sent_by_alias_and_by_id(api: Api, spec: dict[str, Any]) -> None:
    await house(api)
    made = await create(api, spec=spec)
    assert made.spec == schedule_pb2.ScheduleSpec(**spec)
    assert [await get(api, reference) for reference in (f"{DRAFT}/report", f"{DEFAULT}/report", made.id)] == [made] * 3
    assert (made.armed, made.enabled, made.state) == (True, True, schedule_pb2.SCHEDULE_STATE_ACTIVE)
    assert made.target_blob_id == (await acme.get_blob(api)).id
    assert made.target_revision_id == ""


TIMES = st.datetimes(min_value=datetime(2100, 1, 1), max_value=datetime(2190, 1, 1))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TEXTS = st.builds(lambda value, indent: json.dumps(value, indent=indent), JSON, st.sampled_from([None, 0, 3]))
SPECS = st.fixed_dictionaries(
    {
        "repeat": st.just("SCHEDULE_REPEAT_ONE_TIME"),
        "invocation_time": st.builds(
            lambda time, form: time.isoformat(timespec=form), TIMES, st.sampled_from(["minutes", "seconds", "microseconds"])
        ),
        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu"]),
        "invocation_target": st.just(TARGET),
    },
    optional={
        "start_date": st.sampled_from(["2026-01-01", "2026-01-01T00:00Z", "2026-06-01 00:00:00.5+05:45"]),
        "end_date": st.sampled_from(["2199-01-01", "2199-01-01T00:00:00-09:30"]),
        "description": st.text(max_size=64),
        "input_data": st.lists(
            st.builds(lambda alias, text: {"alias": alias, "value_json": text}, st.sampled_from("abcdef"), TEXTS),
            max_size=4,
            unique_by=lambda item: item["alias"],
        ),
    },
)


@settings(max_examples=scaled(200, least=15), deadline=None, suppress_health_check=SHARED_FIXTURES)
@given(spec=SPECS)
async def test_texts_come_back_to_the_letter(api: Api, spec: dict[str, Any]) -> None:
    if await outcome(acme.get_blob(api, NIGHTLY)) != "OK":
        await house(api)
    alias = f"text-{uuid.uuid4().hex}"
    await create(api, alias, spec)
    assert (await get(api, f"{DRAFT}/{alias}")).spec == schedule_pb2.ScheduleSpec(**spec)
    await schedules.delete(api, f"{DRAFT}/{alias}")


WRONG: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"timezone": ""}, {"spec.timezone": "is required"}),
    ({"timezone": "Europe/Berln"}, {"spec.timezone": "Europe/Berlin"}),
    ({"cron_expression": "0 9 * * *  * * *"}, {"spec.cron_expression": "fields"}),
    ({"cron_expression": ""}, {"spec.cron_expression": "is required"}),
    ({"repeat": 0}, {"spec.repeat": "is required"}),
    ({"invocation_time": "2100-01-01T00:00"}, {"spec.invocation_time": "is for repeat ONE_TIME"}),
    ({"start_date": "tomorrow"}, {"spec.start_date": "must be a time"}),
    ({"start_date": "2027-02-30"}, {"spec.start_date": "is no time"}),
    ({"end_date": "2020-01-01"}, {"spec.end_date": "has passed"}),
    ({"start_date": "2040-01-01T00:00:00+24:00"}, {"spec.start_date": "must be a time such as"}),
    (
        {"start_date": "2040-01-01", "end_date": "2040-01-01T01:00Z"},
        {"spec.cron_expression": "there is no such time after now from start_date to end_date"},
    ),
    ({"cron_expression": "0 0 30 2 ? *"}, {"spec.cron_expression": "there is no such time after now"}),
    (ONCE | {"cron_expression": "", "end_date": "2149-01-01"}, {"spec.invocation_time": "is after end_date"}),
    (ONCE | {"cron_expression": "", "start_date": "2151-01-01"}, {"spec.invocation_time": "is before start_date"}),
    (ONCE | {"cron_expression": "", "invocation_time": "2200-01-01T00:00"}, {"spec.invocation_time": "1970 to 2199"}),
    ({"start_date": "2040-01-01", "end_date": "2039-01-01"}, {"spec.end_date": "is before start_date"}),
    ({"invocation_target": {}}, {"spec.invocation_target": "is required"}),
    ({"invocation_target": TARGET | {"revision": "acme/pipeline@draft"}}, {"spec.invocation_target.revision": "must pin"}),
    ({"invocation_target": TARGET | {"revision": "acme pipeline"}}, {"spec.invocation_target.revision": "not a reference"}),
    (
        {"invocation_target": TARGET | {"revision": NIGHTLY}},
        {"spec.invocation_target.revision": "is of a blobhub.compute.scheduler, and what is invoked is"},
    ),
    ({"input_data": [{"alias": "a", "value_json": "{"}]}, {"spec.input_data[0].value_json": "must be one JSON value"}),
    ({"input_data": [{"alias": "a", "value_json": f'"{"x" * 65536}"'}]}, {"spec.input_data[0].value_json": "at most 65536"}),
    ({"input_data": [{"alias": "a", "value_json": "1"}] * 2}, {"spec.input_data": "has a 2 times"}),
    (
        {"input_data": [{"alias": "a", "value_json": '{"type": "template", "template": "{{ nominal }}"}'}]},
        {"spec.input_data[0].value_json.template": "there is no name `nominal`"},
    ),
    (
        {
            "input_data": [
                {"alias": "a", "value_json": '{"type": "template", "template": "a\\n {{ schedule }} {{ nominal }}"}'}
            ]
        },
        {"spec.input_data[0].value_json.template": "previous_time, schedule (line 2, column 20)"},
    ),
    (
        {"input_data": [{"alias": "a", "value_json": '{"type": "template", "template": "since {{ previous_time"}'}]},
        {"spec.input_data[0].value_json.template": "has {{ without }} (line 1, column 7)"},
    ),
    (
        {"input_data": [{"alias": "a", "value_json": '{"type": "expression", "expression": "1 +"}'}]},
        {"spec.input_data[0].value_json.expression": "not a Python expression"},
    ),
    ({"timezone": "Mars/Olympus", "cron_expression": "x", "start_date": "x"}, {"spec.timezone": "", "spec.start_date": ""}),
]


@pytest.mark.parametrize(("fields", "told"), WRONG, ids=[", ".join(fields) for fields, _ in WRONG])
async def test_what_is_no_schedule_is_refused_with_every_problem_at_its_field(
    api: Api, fields: dict[str, Any], told: dict[str, str]
) -> None:
    await house(api)
    found = await refused_fields(create(api, spec=DAILY | fields))
    for field, words in told.items():
        assert words in found[field]


async def test_a_time_that_has_passed_is_refused(api: Api) -> None:
    await house(api)
    found = await refused_fields(create(api, spec=ONCE | {"invocation_time": "2020-01-01T00:00:00"}))
    assert list(found) == ["spec.invocation_time"]


@pytest.mark.both_databases
async def test_an_alias_is_there_once_in_a_revision_and_only_drafts_are_edited(api: Api) -> None:
    await house(api)
    await create(api)
    await expect_refusal(create(api), grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    await expect_refusal(create(api, revision="acme/pipeline@draft"), CONDITION, "WRONG_BLOB_TYPE")
    await schedules.publish(api)
    for call in (create(api, "other", revision=DEFAULT), update(api, f"{DEFAULT}/report", description="x")):
        await expect_refusal(call, CONDITION, "WRONG_PHASE")
    await expect_refusal(schedules.delete(api, f"{DEFAULT}/report"), CONDITION, "WRONG_PHASE")


async def test_an_update_changes_what_is_sent_and_nothing_else(api: Api) -> None:
    await house(api)
    made = await create(api, spec=FULL)
    changed = await update(api, description="Other", timezone="Asia/Tokyo")
    assert changed.spec == schedule_pb2.ScheduleSpec(**(FULL | {"description": "Other", "timezone": "Asia/Tokyo"}))
    assert changed.next_nominal_time != made.next_nominal_time
    cleared = await update(api, paths=["description", "jitter", "input_data"])
    assert (cleared.spec.description, cleared.spec.HasField("jitter"), len(cleared.spec.input_data)) == ("", False, 0)
    await expect_refusal(update(api, description="x", etag=made.etag), grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert (await update(api, description="x", etag=cleared.etag)).id == made.id


async def test_repeat_changes_with_the_time_that_goes_with_it(api: Api) -> None:
    await house(api)
    await create(api)
    once = {"repeat": "SCHEDULE_REPEAT_ONE_TIME"}
    assert await refused_fields(update(api, **once)) == {
        "spec.invocation_time": "is needed in the same call to change repeat to ONE_TIME"
    }
    changed = await update(api, **once, invocation_time="2150-01-01T00:00")
    assert (changed.spec.cron_expression, changed.spec.invocation_time) == ("", "2150-01-01T00:00")
    back = await update(api, repeat="SCHEDULE_REPEAT_RECURRING_CRON", cron_expression="0 9 * * 1-5")
    assert (back.spec.cron_expression, back.spec.invocation_time) == ("0 9 * * 1-5", "")


@pytest.mark.both_databases
async def test_updates_of_different_fields_at_the_same_time_lose_nothing(api: Api) -> None:
    await house(api)
    await create(api)
    await asyncio.gather(
        update(api, description="both"),
        update(api, timezone="Asia/Tokyo"),
        update(api, jitter={"seconds": 5}),
        update(api, overlap="OVERLAP_POLICY_SKIP"),
    )
    spec = (await get(api)).spec
    found = (spec.description, spec.timezone, spec.jitter.seconds, spec.overlap)
    assert found == ("both", "Asia/Tokyo", 5, schedule_pb2.OVERLAP_POLICY_SKIP)


async def test_a_completed_schedule_is_not_updated(api: Api) -> None:
    """In a draft that is not the default one, a time that passes is one that will never fire."""
    await house(api)
    await create(api)
    await schedules.publish(api)
    await acme.branch(api, blob=NIGHTLY)
    soon = (datetime.now(UTC) + timedelta(seconds=3)).replace(tzinfo=None).isoformat()
    await create(api, "soon", ONCE | {"invocation_time": soon, "timezone": "UTC"})

    async def completed() -> bool:
        return (await get(api, f"{DRAFT}/soon")).state == schedule_pb2.SCHEDULE_STATE_COMPLETED

    await until(completed)
    await expect_refusal(update(api, f"{DRAFT}/soon", description="x"), CONDITION, "SCHEDULE_COMPLETED")
    await schedules.delete(api, f"{DRAFT}/soon")


@pytest.mark.both_databases
async def test_lists_are_filtered_and_ordered(api: Api) -> None:
    await house(api)
    for alias, spec in (("b-daily", DAILY), ("a-once", ONCE), ("c-daily", DAILY)):
        await create(api, alias, spec)
    await create(api, "d-off", ONCE, enabled=False)
    await schedules.pause(api, f"{DRAFT}/c-daily")
    assert await listed(api) == ["a-once", "b-daily", "c-daily", "d-off"]
    assert await listed(api, order_by="alias desc") == ["d-off", "c-daily", "b-daily", "a-once"]
    assert await listed(api, repeat="SCHEDULE_REPEAT_ONE_TIME") == ["a-once", "d-off"]
    assert await listed(api, enabled=False) == ["d-off"]
    assert await listed(api, enabled=True, repeat="SCHEDULE_REPEAT_ONE_TIME") == ["a-once"]
    assert await listed(api, state="SCHEDULE_STATE_PAUSED") == ["c-daily"]
    assert await listed(api, alias_prefix="c") == ["c-daily"]
    request = schedule_pb2.ListSchedulesRequest(revision=DRAFT, page_size=1, repeat="SCHEDULE_REPEAT_ONE_TIME")
    found = []
    while True:
        answer = await schedules.stub(api).ListSchedules(request)
        found += [schedule.alias for schedule in answer.schedules]
        request.page_token = answer.next_page_token
        if not answer.next_page_token:
            break
    assert found == ["a-once", "d-off"]


async def test_a_preview_shows_the_days_on_which_the_offset_changes(api: Api) -> None:
    await house(api)
    spec = DAILY | {"cron_expression": "30 2 * * ? *", "invocation_target": {}}
    answer = await schedules.preview(api, spec=spec, count=3, after={"seconds": 1_805_932_800})  # 2027-03-25T00:00Z
    assert [(each.local_time, each.utc_offset, each.offset_changes) for each in answer.occurrences] == [
        ("2027-03-25T02:30:00+01:00", "+01:00", False),
        ("2027-03-26T02:30:00+01:00", "+01:00", False),
        ("2027-03-27T02:30:00+01:00", "+01:00", False),
    ]
    answer = await schedules.preview(api, spec=spec, count=1, after={"seconds": 1_806_192_000})  # 2027-03-28T00:00Z
    (gap,) = answer.occurrences
    assert (gap.local_time, gap.offset_changes) == ("2027-03-28T03:00:00+02:00", True)
    made = await create(api)
    for reference in ("report", made.id):
        (first,) = (await schedules.preview(api, schedule=reference, count=1)).occurrences
        assert first.nominal_time == made.next_nominal_time
    await expect_refusal(schedules.preview(api, schedule="nope"), NOT_FOUND, "NOT_FOUND")


async def test_a_cron_expression_is_told_in_words(api: Api) -> None:
    assert "09:00" in await schedules.describe(api, "0 9 * * ? *")
    await expect_refusal(schedules.describe(api, "every day"), INVALID, "INVALID_VALUE")


@pytest.mark.both_databases
async def test_upcoming_firings_of_a_blob_are_in_the_order_of_time(api: Api) -> None:
    await house(api)
    for alias, cron in (("hourly", "0 * * * ? *"), ("half", "30 * * * ? *"), ("daily", "0 9 * * ? *")):
        await create(api, alias, DAILY | {"cron_expression": cron, "timezone": "UTC"})
    await create(api, "off", DAILY, enabled=False)
    whole = (await schedules.upcoming(api, page_size=100)).firings
    times = [(item.nominal_time.ToDatetime(), item.schedule_id) for item in whole]
    assert times == sorted(times)
    assert {item.schedule_alias for item in whole} == {"hourly", "half", "daily"}
    paged, token = [], ""
    while len(paged) < 100:
        answer = await schedules.upcoming(api, page_size=7, page_token=token)
        paged += answer.firings
        token = answer.next_page_token
    assert paged[:100] == list(whole)
    bound = whole[10].nominal_time
    before = (await schedules.upcoming(api, before=bound)).firings
    assert [item for item in whole if item.nominal_time.ToDatetime() < bound.ToDatetime()] == list(before)


async def test_a_firing_is_answered(api: Api, server: Served) -> None:
    await house(api)
    made = await create(api)
    firing_id = await schedules.put_firing(server, made)
    found = await schedules.get_firing(api, firing_id)
    assert (found.id, found.schedule_id, found.schedule_alias) == (firing_id, made.id, "report")


@pytest.mark.both_databases
async def test_a_scheduler_with_active_schedules_is_deleted_only_with_them(api: Api, server: Served) -> None:
    await house(api)
    made = await create(api)
    await schedules.put_firing(server, made)
    await expect_refusal(acme.delete_blob(api, NIGHTLY), CONDITION, "NOT_EMPTY")
    await acme.delete_blob(api, NIGHTLY, cascade=True)
    await expect_refusal(get(api, made.id), NOT_FOUND, "NOT_FOUND")

    async def is_empty() -> bool:
        tables = ("schedules", "schedule_versions", "firings", "firing_logs")
        counts = [await select(server.settings.url, f"SELECT count(*) FROM {table}") for table in tables]
        return all(rows[0][0] == 0 for rows in counts)

    await until(is_empty)
