"""Schedulers and what they invoke, a line each."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import acme
import flows
from blobhub.v1 import firing_pb2, firing_pb2_grpc, revision_pb2, schedule_pb2, schedule_pb2_grpc
from databases import execute, select
from served import Api, Served

SCHEDULER = "blobhub.compute.scheduler"
NIGHTLY = "acme/nightly"
DRAFT = f"{NIGHTLY}@draft"
DEFAULT = f"{NIGHTLY}@default"
TARGET = {"revision": "acme/pipeline@default", "session": "nightly", "definition": "workflow"}
DAILY = {
    "repeat": "SCHEDULE_REPEAT_RECURRING_CRON",
    "cron_expression": "0 9 * * ? *",
    "timezone": "Europe/Berlin",
    "invocation_target": TARGET,
}
"""A spec that fires every day."""
ONCE = {
    "repeat": "SCHEDULE_REPEAT_ONE_TIME",
    "invocation_time": "2150-03-28T02:30:00",
    "timezone": "Europe/Berlin",
    "invocation_target": TARGET,
}
"""A spec that fires once, in a time to come."""


def stub(api: Api) -> schedule_pb2_grpc.ScheduleServiceStub:
    return schedule_pb2_grpc.ScheduleServiceStub(api.channel)


async def house(api: Api, definition: str = "") -> None:
    """An organization with a workflow to invoke, and a scheduler without schedules."""
    await api.session(definition or flows.steps(1))
    await acme.blob(api, NIGHTLY, SCHEDULER)


async def create(
    api: Api, alias: str = "report", spec: Mapping[str, Any] = DAILY, *, revision: str = DRAFT, **fields: Any
) -> schedule_pb2.Schedule:
    request = schedule_pb2.CreateScheduleRequest(revision=revision, alias=alias, spec=spec, **fields)
    return (await stub(api).CreateSchedule(request)).schedule


async def get(api: Api, reference: str = f"{DRAFT}/report") -> schedule_pb2.Schedule:
    return (await stub(api).GetSchedule(schedule_pb2.GetScheduleRequest(schedule=reference))).schedule


async def update(api: Api, reference: str = f"{DRAFT}/report", **fields: Any) -> schedule_pb2.Schedule:
    """Update fields of a spec; `paths` are the mask, and `etag` the etag."""
    mask, etag = {"paths": fields.pop("paths", ())}, fields.pop("etag", "")
    request = schedule_pb2.UpdateScheduleRequest(schedule=reference, spec=fields, update_mask=mask, etag=etag)
    return (await stub(api).UpdateSchedule(request)).schedule


async def delete(api: Api, reference: str = f"{DRAFT}/report", **fields: Any) -> schedule_pb2.DeleteScheduleResponse:
    return await stub(api).DeleteSchedule(schedule_pb2.DeleteScheduleRequest(schedule=reference, **fields))


async def enable(api: Api, reference: str) -> schedule_pb2.Schedule:
    return (await stub(api).EnableSchedule(schedule_pb2.EnableScheduleRequest(schedule=reference))).schedule


async def disable(api: Api, reference: str) -> schedule_pb2.Schedule:
    return (await stub(api).DisableSchedule(schedule_pb2.DisableScheduleRequest(schedule=reference))).schedule


async def pause(api: Api, reference: str, note: str = "") -> schedule_pb2.Schedule:
    return (await stub(api).PauseSchedule(schedule_pb2.PauseScheduleRequest(schedule=reference, note=note))).schedule


async def resume(api: Api, reference: str) -> schedule_pb2.Schedule:
    return (await stub(api).ResumeSchedule(schedule_pb2.ResumeScheduleRequest(schedule=reference))).schedule


async def reassign(api: Api, reference: str, **actor: str) -> schedule_pb2.Schedule:
    return (await stub(api).ReassignSchedule(schedule_pb2.ReassignScheduleRequest(schedule=reference, **actor))).schedule


async def listed(api: Api, revision: str = DRAFT, **fields: Any) -> list[str]:
    """The aliases of the schedules of a revision."""
    request = schedule_pb2.ListSchedulesRequest(revision=revision, **fields)
    return [schedule.alias for schedule in (await stub(api).ListSchedules(request)).schedules]


async def preview(api: Api, revision: str = DRAFT, **fields: Any) -> schedule_pb2.PreviewScheduleResponse:
    return await stub(api).PreviewSchedule(schedule_pb2.PreviewScheduleRequest(revision=revision, **fields))


async def upcoming(api: Api, blob: str = NIGHTLY, **fields: Any) -> schedule_pb2.ListUpcomingFiringsResponse:
    return await stub(api).ListUpcomingFirings(schedule_pb2.ListUpcomingFiringsRequest(blob=blob, **fields))


async def describe(api: Api, cron_expression: str) -> str:
    return (await stub(api).DescribeCron(schedule_pb2.DescribeCronRequest(cron_expression=cron_expression))).description


async def get_firing(api: Api, firing_id: str) -> firing_pb2.Firing:
    request = firing_pb2.GetFiringRequest(firing=firing_id)
    return (await firing_pb2_grpc.FiringServiceStub(api.channel).GetFiring(request)).firing


async def put_firing(server: Served, schedule: schedule_pb2.Schedule) -> str:
    """Store a firing of a schedule, as if it had fired; return its id."""
    owner = f"SELECT organization_id FROM schedules WHERE id = '{schedule.id}'"
    values = {
        "id": str(uuid.uuid4()),
        "organization_id": (await select(server.settings.url, owner))[0][0],
        "blob_id": schedule.blob_id,
        "schedule_id": schedule.id,
        "schedule_alias": schedule.alias,
        "kind": "scheduled",
        **dict.fromkeys(("nominal_time", "due_time", "fire_time"), 1_800_000_000_000_000),
        "tzdata": "2026f",
        "schedule_digest": schedule.digest,
        "actor_id": schedule.actor_id,
        "revision": f"{schedule.target_blob_id}@default",
        "session": "",
        "definition": "workflow",
        "status": "access_error",
        "reason": "PERMISSION_DENIED",
        "message": "",
        "sequence": 1,
    }
    texts = ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in values.values())
    await execute(server.settings.url, f"INSERT INTO firings ({', '.join(values)}) VALUES ({texts})")
    return values["id"]


def firings(api: Api) -> firing_pb2_grpc.FiringServiceStub:
    return firing_pb2_grpc.FiringServiceStub(api.channel)


async def trigger(api: Api, reference: str = f"{DEFAULT}/report", **fields: Any) -> firing_pb2.Firing:
    request = firing_pb2.TriggerScheduleRequest(schedule=reference, **fields)
    return (await firings(api).TriggerSchedule(request)).firing


def backfilling(api: Api, start: str, end: str, reference: str = f"{DEFAULT}/report", **fields: Any) -> Any:
    """The stream of a backfill, from one time to another: `2024-03-28T00:00:00Z`."""
    request = firing_pb2.BackfillScheduleRequest(schedule=reference, **fields)
    request.start_time.FromJsonString(start)
    request.end_time.FromJsonString(end)
    return firings(api).BackfillSchedule(request)


async def backfill(api: Api, start: str, end: str, **fields: Any) -> list[firing_pb2.Firing]:
    """All firings that a backfill tells of."""
    return [firing async for step in backfilling(api, start, end, **fields) for firing in step.firings]


async def publish(api: Api, blob: str = NIGHTLY) -> revision_pb2.Revision:
    """Commit and publish the only draft."""
    return await api.publish(blob)
