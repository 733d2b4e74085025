"""`blobhub schedule`: schedules, what they will fire, and what they have fired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from blobhub.v1 import firing_pb2, schedule_pb2, user_pb2
from blobhub_client import set_value
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
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
UPCOMING_COLUMNS = ("LOCAL=local_time", "UTC=nominal_time", "SCHEDULE=schedule_alias")
FORM = "REVISION/ALIAS, such as acme/nightly@draft/digest"

Schedule = Annotated[str, Argument(help="`acme/nightly@default/digest`, or its id.")]
Cron = Annotated[str, Option("--cron", help="When, again and again: `0 9 ? * MON-FRI *` or `0 9 * * 1-5`.")]
At = Annotated[str, Option("--at", help="When, once, in the zone: 2026-12-24T18:00:00.")]
Zone = Annotated[str, Option("--timezone", "-z", help="The zone, such as Europe/Berlin.")]
Target = Annotated[str, Option("--run", help="What: `acme/pipeline@default/summary`.")]
Session = Annotated[str, Option("--session", help="The alias of the session; a new one for each firing.")]
CatchUp = Annotated[str, Option("--catch-up", help="After downtime: skip, last or all.")]
Overlap = Annotated[str, Option("--overlap", help="While one runs: allow, skip, queue-one or stop-running.")]
Jitter = Annotated[int | None, Option("--jitter", help="Seconds that a firing may be late, at random.")]
Start = Annotated[str | None, Option("--start", help="The first moment it may fire.")]
End = Annotated[str | None, Option("--end", help="The last moment it may fire.")]
Description = Annotated[str | None, Option("--description", help="What it is for, in words.")]


@noun.command(
    "create",
    "blobhub schedule create acme/nightly@draft/digest --cron '0 9 ? * MON-FRI *' -z Europe/Berlin "
    "--run acme/pipeline@default/summary",
    "blobhub schedule create acme/nightly@draft/once --at 2026-12-24T18:00:00 --run acme/pipeline@1/summary -i document=Hi",
)
async def create(
    hub: Hub,
    schedule: Annotated[str, Argument(help="Where: `acme/nightly@draft/digest`.")],
    target: Target,
    cron: Cron = "",
    at: At = "",
    timezone: Zone = "UTC",
    session: Session = "",
    given: InputOption = None,
    catch_up: CatchUp = "",
    overlap: Overlap = "",
    jitter: Jitter = None,
    start: Start = None,
    end: End = None,
    description: Description = None,
) -> None:
    """Create a schedule in a scheduler's draft, or in another revision of it."""
    revision, alias = split_last(schedule, FORM)
    spec = _make_spec(cron, at, timezone, given)
    _set(spec, start_date=start, end_date=end, description=description)
    _set_rest(spec, target, session, catch_up, overlap, jitter)
    request = schedule_pb2.CreateScheduleRequest(revision=revision, alias=alias, spec=spec)
    hub.out.record((await hub.call(hub.client.schedules.CreateSchedule, request)).schedule)


@noun.command(
    "update",
    "blobhub schedule update acme/nightly@draft/digest --cron '0 8 ? * MON-FRI *' -z Europe/Berlin",
    "blobhub schedule update acme/nightly@draft/digest --end '' --overlap skip",
)
async def update(
    hub: Hub,
    schedule: Annotated[str, Argument(help="A schedule of a draft: `acme/nightly@draft/digest`.")],
    target: Target = "",
    cron: Cron = "",
    at: At = "",
    timezone: Annotated[str | None, Option("--timezone", "-z", help="The zone, such as Europe/Berlin.")] = None,
    session: Session = "",
    given: InputOption = None,
    catch_up: CatchUp = "",
    overlap: Overlap = "",
    jitter: Jitter = None,
    start: Start = None,
    end: End = None,
    description: Description = None,
    etag: EtagOption = "",
) -> None:
    """Change what is given of a schedule; inputs are replaced by those given. An empty text takes away what was there."""
    if session and not target:
        raise CommandError("a session is a part of what is run: give --run with it")
    spec, mask = schedule_pb2.ScheduleSpec(), []
    if cron or at:
        spec.CopyFrom(_make_spec(cron, at, ""))
        mask += ["repeat", "cron_expression" if cron else "invocation_time"]
    mask += _set(spec, timezone=timezone, start_date=start, end_date=end, description=description)
    mask += _set_rest(spec, target, session, catch_up, overlap, jitter)
    if given:
        _add_inputs(spec, given)
        mask.append("input_data")
    if not mask:
        raise CommandError("say what is to change, such as --cron")
    request = schedule_pb2.UpdateScheduleRequest(schedule=schedule, spec=spec, update_mask=FieldMask(paths=mask), etag=etag)
    hub.out.record((await hub.call(hub.client.schedules.UpdateSchedule, request)).schedule)


def _set(spec: schedule_pb2.ScheduleSpec, **texts: str | None) -> list[str]:
    """Set those fields that are given, and answer their names."""
    given = {name: text for name, text in texts.items() if text is not None}
    for name, text in given.items():
        setattr(spec, name, text)
    return [*given]


def _set_rest(
    spec: schedule_pb2.ScheduleSpec, target: str, session: str, catch_up: str, overlap: str, jitter: int | None
) -> list[str]:
    """Set what is run, and how, as far as it is given; the names of the fields. Raises CommandError."""
    mask = []
    if target:
        revision, definition = split_last(target, "REVISION/DEFINITION, such as acme/pipeline@default/summary")
        made = schedule_pb2.InvocationTarget(revision=revision, definition=definition, session=session)
        spec.invocation_target.CopyFrom(made)
        mask.append("invocation_target")
    if catch_up:
        spec.catch_up = word_number(schedule_pb2.CatchUpPolicy.DESCRIPTOR, catch_up, "catch-up policy")
        mask.append("catch_up")
    if overlap:
        spec.overlap = word_number(schedule_pb2.OverlapPolicy.DESCRIPTOR, overlap, "overlap policy")
        mask.append("overlap")
    if jitter is not None:
        spec.jitter.CopyFrom(Duration(seconds=jitter))
        mask.append("jitter")
    return mask


def _add_inputs(spec: schedule_pb2.ScheduleSpec, given: Sequence[str]) -> None:
    for alias, value in named_values(given).items():
        set_value(spec.input_data.add(alias=alias), value)


def _make_spec(cron: str, at: str, timezone: str, given: Sequence[str] | None = None) -> schedule_pb2.ScheduleSpec:
    """When to fire, and with which inputs. Raises CommandError."""
    if bool(cron) == bool(at):
        raise CommandError("a schedule fires again and again (--cron), or once (--at): give one of them")
    repeat = schedule_pb2.SCHEDULE_REPEAT_RECURRING_CRON if cron else schedule_pb2.SCHEDULE_REPEAT_ONE_TIME
    spec = schedule_pb2.ScheduleSpec(repeat=repeat, cron_expression=cron, invocation_time=at, timezone=timezone)
    _add_inputs(spec, given or ())
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


@noun.command(
    "backfill",
    "blobhub schedule backfill acme/nightly@default/digest 2026-11-01 2026-11-08",
    "blobhub schedule backfill acme/nightly@default/digest 2026-11-01T09:00:00Z 2026-11-01T18:00:00Z --json",
)
async def backfill(
    hub: Hub,
    schedule: Schedule,
    start: Annotated[str, Argument(help="The begin of the range, in UTC unless it says otherwise.")],
    end: Annotated[str, Argument(help="Its end, at most 366 days later.")],
) -> None:
    """Fire the times of a range in the past that are missing, the oldest first. To do it again goes on where it was."""
    hub.farewell = "blobhub: interrupted; what has fired stays, and the same command goes on with what is missing"
    request = firing_pb2.BackfillScheduleRequest(schedule=schedule, start_time=timestamp(start), end_time=timestamp(end))
    seen: set[str] = set()
    message = firing_pb2.BackfillScheduleResponse(next_start_time=request.start_time)
    while message.HasField("next_start_time"):  # a call fires no more than so many
        request.start_time.CopyFrom(message.next_start_time)
        message = firing_pb2.BackfillScheduleResponse()
        async for message in hub.client.firings.BackfillSchedule(request):
            for firing in message.firings:
                if firing.id not in seen:
                    seen.add(firing.id)
                    show_firing(hub, firing)
    hub.farewell = ""
    hub.out.note(f"{len(seen)} times of the range have been backfilled")


@noun.command(
    "upcoming", "blobhub schedule upcoming acme/nightly", "blobhub schedule upcoming acme/nightly --before 2027-01-01"
)
async def upcoming(
    hub: Hub,
    blob: Annotated[str, Argument(help="The scheduler.")],
    before: Annotated[str, Option("--before", help="Times before this one.")] = "",
    limit: LimitOption = 20,
) -> None:
    """List when the schedules of a scheduler fire next, all together."""
    request = schedule_pb2.ListUpcomingFiringsRequest(blob=blob, before=timestamp(before))
    await hub.out.table(hub.pages(hub.client.schedules.ListUpcomingFirings, request, limit), UPCOMING_COLUMNS, limit)


@noun.command(
    "reassign",
    "blobhub schedule reassign acme/nightly@default/digest --user @ann",
    "blobhub schedule reassign acme/nightly@default/digest --key 01890000-0000-7000-8000-000000000000",
)
async def reassign(
    hub: Hub,
    schedule: Schedule,
    user: Annotated[str, Option("--user", help="A user: `@ann`, or an id.")] = "",
    key: Annotated[str, Option("--key", help="A key, by its id.")] = "",
) -> None:
    """Have a schedule act for another user or key from now on."""
    if bool(user) == bool(key):
        raise CommandError("a schedule acts for a user (--user), or for a key (--key): give one of them")
    request = schedule_pb2.ReassignScheduleRequest(schedule=schedule)
    if key:
        request.api_key = key
    else:
        request.user = (await hub.call(hub.client.users.GetUser, user_pb2.GetUserRequest(user=user))).user.id
    await _switch(hub, hub.client.schedules.ReassignSchedule, request)
