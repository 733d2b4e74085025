"""`blobhub schedule`: schedules, what they will fire, and what they have fired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from blobhub.v1 import firing_pb2, schedule_pb2
from blobhub_client import set_value
from google.protobuf.duration_pb2 import Duration
from typer import Argument, Option

from blobhub_cli.command import EtagOption, LimitOption, Noun
from blobhub_cli.failures import CommandError
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import named_values, split_last, timestamp, word_number
from blobhub_cli.nouns.watch import show_firing
from blobhub_cli.plain import readable
from blobhub_cli.starting import InputOption

noun = Noun("schedule", "Schedules: definitions that run at their time, and the history of that.")
COLUMNS = (
    "alias",
    "state",
    "CRON=spec.cron_expression",
    "ONCE=spec.invocation_time",
    "ZONE=spec.timezone",
    "NEXT=next_due_time",
)
FIRING_COLUMNS = (
    "NOMINAL=nominal_time",
    "SCHEDULE=schedule_alias",
    "kind",
    "status",
    "EXECUTION=execution_state",
    "execution_id",
    "message",
)
FORM = "REVISION/ALIAS, such as acme/nightly@draft/digest"

Schedule = Annotated[str, Argument(help="`acme/nightly@default/digest`, or its id.")]
Cron = Annotated[str, Option("--cron", help="When, again and again: `0 9 ? * MON-FRI *` or `0 9 * * 1-5`.")]
At = Annotated[str, Option("--at", help="When, once, in the zone: 2026-12-24T18:00:00.")]
Zone = Annotated[str, Option("--timezone", "-z", help="The zone, such as Europe/Berlin.")]


@noun.command(
    "create",
    "blobhub schedule create acme/nightly@draft/digest --cron '0 9 ? * MON-FRI *' -z Europe/Berlin "
    "--run acme/pipeline@default/summary",
    "blobhub schedule create acme/nightly@draft/once --at 2026-12-24T18:00:00 --run acme/pipeline@1/summary -i document=Hi",
)
async def create(
    hub: Hub,
    schedule: Annotated[str, Argument(help="Where: `acme/nightly@draft/digest`.")],
    target: Annotated[str, Option("--run", help="What: `acme/pipeline@default/summary`.")],
    cron: Cron = "",
    at: At = "",
    timezone: Zone = "UTC",
    session: Annotated[str, Option("--session", help="The alias of the session; a new one for each firing.")] = "",
    given: InputOption = None,
    catch_up: Annotated[str, Option("--catch-up", help="After downtime: skip, last or all.")] = "",
    overlap: Annotated[str, Option("--overlap", help="While one runs: allow, skip, queue-one or stop-running.")] = "",
    jitter: Annotated[int, Option("--jitter", help="Seconds that a firing may be late, at random.")] = 0,
    start: Annotated[str, Option("--start", help="The first moment it may fire.")] = "",
    end: Annotated[str, Option("--end", help="The last moment it may fire.")] = "",
    description: Annotated[str, Option("--description", help="What it is for, in words.")] = "",
) -> None:
    """Create a schedule in a scheduler's draft, or in another revision of it."""
    revision, alias = split_last(schedule, FORM)
    target_revision, definition = split_last(target, "REVISION/DEFINITION, such as acme/pipeline@default/summary")
    spec = _make_spec(cron, at, timezone, given)
    spec.invocation_target.revision, spec.invocation_target.definition = target_revision, definition
    spec.invocation_target.session = session
    spec.catch_up = word_number(schedule_pb2.CatchUpPolicy.DESCRIPTOR, catch_up, "catch-up policy")
    spec.overlap = word_number(schedule_pb2.OverlapPolicy.DESCRIPTOR, overlap, "overlap policy")
    spec.start_date, spec.end_date, spec.description = start, end, description
    if jitter:
        spec.jitter.CopyFrom(Duration(seconds=jitter))
    request = schedule_pb2.CreateScheduleRequest(revision=revision, alias=alias, spec=spec)
    hub.out.record((await hub.call(hub.client.schedules.CreateSchedule, request)).schedule)


def _make_spec(cron: str, at: str, timezone: str, given: Sequence[str] | None = None) -> schedule_pb2.ScheduleSpec:
    """When to fire, and with which inputs. Raises CommandError."""
    if bool(cron) == bool(at):
        raise CommandError("a schedule fires again and again (--cron), or once (--at): give one of them")
    repeat = schedule_pb2.SCHEDULE_REPEAT_RECURRING_CRON if cron else schedule_pb2.SCHEDULE_REPEAT_ONE_TIME
    spec = schedule_pb2.ScheduleSpec(repeat=repeat, cron_expression=cron, invocation_time=at, timezone=timezone)
    for alias, value in named_values(given or ()).items():
        set_value(spec.input_data.add(alias=alias), value)
    return spec


@noun.command("get", "blobhub schedule get acme/nightly@default/digest")
async def get(hub: Hub, schedule: Schedule) -> None:
    """Show a schedule."""
    request = schedule_pb2.GetScheduleRequest(schedule=schedule)
    hub.out.record((await hub.call(hub.client.schedules.GetSchedule, request)).schedule)


@noun.command("list", "blobhub schedule list acme/nightly@default --state active")
async def list_all(
    hub: Hub,
    revision: Annotated[str, Argument(help="The revision of the scheduler.")],
    state: Annotated[str, Option("--state", help="active, paused or completed.")] = "",
    prefix: Annotated[str, Option("--prefix", help="What the aliases begin with.")] = "",
    limit: LimitOption = 100,
) -> None:
    """List the schedules of a revision."""
    number = word_number(schedule_pb2.ScheduleState.DESCRIPTOR, state, "state")
    request = schedule_pb2.ListSchedulesRequest(revision=revision, alias_prefix=prefix, state=number)
    await hub.out.table(hub.pages(hub.client.schedules.ListSchedules, request, limit), COLUMNS, limit)


@noun.command("delete", "blobhub schedule delete acme/nightly@draft/digest")
async def delete(hub: Hub, schedule: Schedule, etag: EtagOption = "") -> None:
    """Delete a schedule."""
    request = schedule_pb2.DeleteScheduleRequest(schedule=schedule, etag=etag)
    hub.out.done(await hub.call(hub.client.schedules.DeleteSchedule, request), f"deleted {schedule}")


@noun.command(
    "preview",
    "blobhub schedule preview acme/nightly@draft/digest --count 3",
    "blobhub schedule preview acme/nightly@draft --cron '30 2 * * *' -z Europe/Berlin --after 2027-03-27",
)
async def preview(
    hub: Hub,
    schedule: Annotated[str, Argument(help="`acme/nightly@draft/digest`; the revision alone, with --cron or --at.")],
    cron: Cron = "",
    at: At = "",
    timezone: Zone = "UTC",
    count: Annotated[int, Option("--count", "-n", help="How many times.")] = 10,
    after: Annotated[str, Option("--after", help="Times after this one; now, unless given.")] = "",
) -> None:
    """Show when a schedule fires next, stored or not."""
    request = schedule_pb2.PreviewScheduleRequest(count=count, after=timestamp(after))
    if cron or at:
        request.revision = schedule
        request.spec.CopyFrom(_make_spec(cron, at, timezone))
    else:
        request.revision, request.schedule = split_last(schedule, FORM)
    answer = await hub.call(hub.client.schedules.PreviewSchedule, request)
    if hub.out.as_json:
        hub.out.record(answer)
        return
    hub.out.line(answer.description)
    rows: list[list[str]] = []
    for each in answer.occurrences:
        note = "the clock has been changed since the one before" if each.offset_changes else ""
        rows.append([each.local_time, each.utc_offset, readable(each, "nominal_time"), note])
    hub.out.rows(["LOCAL", "OFFSET", "UTC", ""], rows)


@noun.command("describe", "blobhub schedule describe '0 9 ? * MON-FRI *'")
async def describe(hub: Hub, cron: Annotated[str, Argument(help="The cron expression.")]) -> None:
    """Say in words when a cron expression fires."""
    answer = await hub.call(hub.client.schedules.DescribeCron, schedule_pb2.DescribeCronRequest(cron_expression=cron))
    hub.out.done(answer, answer.description)


@noun.command("trigger", "blobhub schedule trigger acme/nightly@default/digest")
async def trigger(hub: Hub, schedule: Schedule) -> None:
    """Fire a schedule out of turn, now."""
    request = firing_pb2.TriggerScheduleRequest(schedule=schedule)
    hub.out.record((await hub.call(hub.client.firings.TriggerSchedule, request)).firing)


@noun.command("pause", "blobhub schedule pause acme/nightly@default/digest --note 'Until the new year'")
async def pause(hub: Hub, schedule: Schedule, note: Annotated[str, Option("--note", help="Why.")] = "") -> None:
    """Keep a schedule from firing until it is resumed."""
    request = schedule_pb2.PauseScheduleRequest(schedule=schedule, note=note)
    hub.out.record((await hub.call(hub.client.schedules.PauseSchedule, request)).schedule)


async def _switch(hub: Hub, method: Any, request: Any) -> None:
    hub.out.record((await hub.call(method, request)).schedule)


@noun.command("resume", "blobhub schedule resume acme/nightly@default/digest")
async def resume(hub: Hub, schedule: Schedule) -> None:
    """Let a schedule that was paused fire again."""
    await _switch(hub, hub.client.schedules.ResumeSchedule, schedule_pb2.ResumeScheduleRequest(schedule=schedule))


@noun.command("enable", "blobhub schedule enable acme/nightly@default/digest")
async def enable(hub: Hub, schedule: Schedule) -> None:
    """Switch a schedule on."""
    await _switch(hub, hub.client.schedules.EnableSchedule, schedule_pb2.EnableScheduleRequest(schedule=schedule))


@noun.command("disable", "blobhub schedule disable acme/nightly@default/digest")
async def disable(hub: Hub, schedule: Schedule) -> None:
    """Switch a schedule off."""
    await _switch(hub, hub.client.schedules.DisableSchedule, schedule_pb2.DisableScheduleRequest(schedule=schedule))


@noun.command(
    "history", "blobhub schedule history acme/nightly", "blobhub schedule history acme/nightly --schedule digest --follow"
)
async def history(
    hub: Hub,
    blob: Annotated[str, Argument(help="The scheduler.")],
    schedule: Annotated[str, Option("--schedule", help="Firings of one schedule, by its alias.")] = "",
    status: Annotated[str, Option("--status", help="success, access-error, invocation-error or skipped.")] = "",
    follow: Annotated[
        bool, Option("--follow", "-f", help="Go on with those to come, and with what becomes of them.")
    ] = False,
    limit: LimitOption = 50,
) -> None:
    """Show what has fired, and what became of it."""
    if follow:
        async for firing in hub.client.watch_firings(blob, schedule=schedule):
            show_firing(hub, firing)
        return
    number = word_number(firing_pb2.FiringStatus.DESCRIPTOR, status, "status")
    request = firing_pb2.ListFiringsRequest(blob=blob, schedule=schedule, status=number)
    await hub.out.table(hub.pages(hub.client.firings.ListFirings, request, limit), FIRING_COLUMNS, limit)
