"""The command line with signals and tasks, and with schedules that are changed, backfilled and handed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import schedules
import signals
import tasks
from blobhub_cli.failures import ExitCode
from command_line import SCRIPT, CommandLine
from pseudo_terminal import terminal
from served import Api
from waiting import until

pytestmark = pytest.mark.either_database
EXACT = 2**63 - 1


async def test_a_signal_goes_to_whoever_waits_or_is_kept_and_those_who_wait_are_listed(
    blobhub: CommandLine, api: Api
) -> None:
    session = await api.session(signals.waits(("go", "7"), ("go", "8")))
    started = await blobhub.json("run", "workflow", "--session", session, "--detach")
    (wait,) = [each for each in await waiting(blobhub) if each["signal"]["key"] == "7"]
    assert wait["execution_id"] == started["id"]
    assert await blobhub.jsons("signal", "list", "acme/pipeline", "--key", "none") == []
    got = await blobhub("signal", "send", "acme/pipeline", "go", str(EXACT), "--key", "7")
    assert got == f"the execution {started['id']} has got it\n"
    assert "sent to" in await blobhub("signal", "execution", started["id"], "go", "a text", "--key", "8")
    ended = await blobhub.jsons("execution", "watch", started["id"])
    assert ended[-1]["flow_exited"]["result"] == [EXACT, "a text"]
    kept = await blobhub("signal", "send", "acme/pipeline", "go")
    assert kept.startswith("nobody waits for it: it is kept until 2")
    late = await blobhub.refused(ExitCode.REFUSED, "signal", "execution", started["id"], "go")
    assert "EXECUTION_ENDED" in late


async def waiting(blobhub: CommandLine) -> list[dict]:
    """Who waits, once somebody does."""
    return await until(lambda: blobhub.jsons("signal", "list", "acme/pipeline", "--name", "go"))


async def test_a_queue_and_its_tasks_are_shown_and_followed(blobhub: CommandLine, api: Api) -> None:
    session = await api.session(tasks.calls())
    await blobhub("run", "workflow", "--session", session, "--detach")
    await until(lambda: blobhub.jsons("task", "list", tasks.QUEUE, "--state", "waiting"))
    (row,) = (await blobhub("task", "list", tasks.QUEUE)).splitlines()[1:]
    assert row.split()[:2] == ["waiting", "work"]
    async with terminal([SCRIPT, "task", "queue", tasks.QUEUE, "--follow"], blobhub.environment) as person:
        await person.shows("1 wait since 2")
        async with tasks.leasing(api, worker="left"):
            await person.shows("0 wait; 1 are done by left (1)")
            found = await blobhub.json("task", "queue", tasks.QUEUE)
            assert (found["leased_tasks"], found["workers"][0]["name"]) == ("1", "left")
        person.type("\x03")
        assert await person.ended() == ExitCode.INTERRUPTED


async def test_a_schedule_is_changed_in_what_is_given_alone(blobhub: CommandLine, api: Api) -> None:
    await schedules.house(api)
    draft = "acme/nightly@draft/report"
    target = ("--run", "acme/pipeline@default/workflow", "-i", "a=1")
    times = ("--cron", "0 9 * * *", "--end", "2150-01-01", "--jitter", "5")
    made = await blobhub.json("schedule", "create", draft, *times, *target)
    assert made["spec"]["end_date"] == "2150-01-01"
    changed = await blobhub.json(
        "schedule", "update", draft, "--timezone", "Europe/Berlin", "--overlap", "skip", "--jitter", "0"
    )
    assert changed["spec"] == {
        **made["spec"],
        "timezone": "Europe/Berlin",
        "overlap": "OVERLAP_POLICY_SKIP",
        "jitter": "0s",
    }
    cleared = await blobhub.json("schedule", "update", draft, "--end", "", "--at", "2150-12-24T18:00:00", "-i", "b:=2")
    assert "end_date" not in cleared["spec"]
    assert "cron_expression" not in cleared["spec"]
    assert cleared["spec"]["repeat"] == "SCHEDULE_REPEAT_ONE_TIME"
    assert [(each["alias"], each["value"]) for each in cleared["spec"]["input_data"]] == [("b", 2)]
    assert "what is to change" in await blobhub.refused(ExitCode.USAGE, "schedule", "update", draft)
    assert "--run" in await blobhub.refused(ExitCode.USAGE, "schedule", "update", draft, "--session", "intake")
    stale = ("--description", "x", "--etag", made["etag"])
    assert "STALE_ETAG" in await blobhub.refused(ExitCode.CONFLICT, "schedule", "update", draft, *stale)


async def test_a_range_is_backfilled_once_what_comes_is_listed_and_a_schedule_is_handed_over(
    blobhub: CommandLine, api: Api, tmp_path: Path
) -> None:
    await schedules.house(api)
    await schedules.create(api, "report", spec=schedules.DAILY | {"cron_expression": "0 * * * *", "timezone": "UTC"})
    report = f"{schedules.DEFAULT}/report"
    day = ("2024-03-01T00:00:00Z", "2024-03-01T03:00:00Z")
    first = await blobhub.run("schedule", "backfill", report, *day)
    assert first.stderr == "4 times of the range have been backfilled\n"
    assert first.stdout.startswith("2024-03-01 00:00:00Z  report  backfilled")
    again = await blobhub.jsons("schedule", "backfill", report, *day)
    assert len(again) == 4
    assert {each["kind"] for each in await blobhub.jsons("schedule", "history", schedules.NIGHTLY)} == {
        "FIRING_KIND_BACKFILLED"
    }
    heading, *rows = (await blobhub("schedule", "upcoming", schedules.NIGHTLY, "--limit", "3")).splitlines()
    assert heading.split() == ["LOCAL", "UTC", "SCHEDULE"]
    assert [row.split()[-1] for row in rows] == ["report"] * 3
    user = await blobhub.json("user", "create", "ann")
    await blobhub("member", "create", "acme", "@ann", "write")
    handed = await blobhub.json("schedule", "reassign", report, "--user", "@ann")
    assert handed["actor_id"] == user["id"]
    key = (await blobhub.json("key", "create", "acme", "--role", "write"))["api_key"]["id"]
    assert (await blobhub.json("schedule", "reassign", report, "--key", key))["actor_id"] == key
    assert "give one of them" in await blobhub.refused(ExitCode.USAGE, "schedule", "reassign", report)
