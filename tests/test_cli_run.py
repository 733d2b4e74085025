"""The command line runs workflows: files without any set-up, stored definitions, live in a terminal, as lines in a pipe."""

from __future__ import annotations

import json
from pathlib import Path

import flows
import pytest
from blobhub_cli.failures import ExitCode
from command_line import SCRIPT, CommandLine
from pseudo_terminal import normal, terminal
from served import Api, Served
from waiting import until

pytestmark = pytest.mark.either_database

GOLDEN = Path(__file__).parent / "golden"
TALK = """print("count", 3)
emit_output({"progress": 0.5})
set_data_output("result", inputs.given)
set_result("success")"""


def written(path: Path, document: str) -> str:
    """A file with a document; its name."""
    path.write_text(document)
    return str(path)


def same_as_golden(name: str, screen: str) -> None:
    """Compare a screen with the one that is kept."""
    kept = GOLDEN / f"{name}.txt"
    if not kept.exists():
        kept.write_text(screen)
    assert screen == kept.read_text()


async def test_a_file_runs_without_any_set_up_and_its_events_are_lines_in_a_pipe(
    blobhub: CommandLine, tmp_path: Path
) -> None:
    file = written(tmp_path / "Talk Show.json", flows.code(TALK))
    done = await blobhub.run("definition", "run", file, "-i", 'given:={"n": 9007199254740993}')
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "created organization administrator-scratch\ncreated blob administrator-scratch/talk-show\n" in done.stderr
    events = done.stdout.splitlines()
    assert events[0].split()[2] == "flow.entered"
    assert any("processor.output" in line and "count 3" in line for line in events)
    assert '"n": 9007199254740993' in done.stdout
    last = (await blobhub.jsons("definition", "run", file, "-i", f"given=@{written(tmp_path / 'given', 'text')}"))[-1]
    assert (last["type"], last["flow_exited"]["result"]) == ("flow.exited", "text")

    written(tmp_path / "Talk Show.json", flows.code("raise ValueError('no talk')"))
    failed = await blobhub.run("definition", "run", file)
    assert failed.returncode == ExitCode.FAILED
    assert "no talk" in failed.stdout
    assert "failed: blobhub execution show " in failed.stderr
    written(tmp_path / "Talk Show.json", flows.code("this is no script"))
    broken = await blobhub.run("definition", "run", file)
    assert broken.returncode == ExitCode.DIFFERENT
    assert "invalid-script" in broken.stdout
    assert "it cannot run" in broken.stdout
    assert "is none of these" in await blobhub.refused(ExitCode.USAGE, "definition", "run", file, "-i", "given")
    assert "cannot read" in await blobhub.refused(ExitCode.USAGE, "definition", "run", str(tmp_path / "none.json"))


async def test_definitions_go_to_drafts_and_come_back_byte_for_byte(blobhub: CommandLine, tmp_path: Path) -> None:
    file = written(tmp_path / "steps.json", flows.steps(2))
    await blobhub("org", "create", "acme")
    await blobhub("blob", "create", "acme/pipeline")
    assert "it can run" in await blobhub("definition", "check", file, "--blob", "acme/pipeline")
    await blobhub("definition", "push", file, "acme/pipeline@draft/steps")
    stored = "acme/pipeline@draft/steps"
    assert await blobhub("definition", "pull", stored) == flows.steps(2)
    await blobhub("definition", "pull", stored, "-o", str(tmp_path / "back.json"))
    assert (tmp_path / "back.json").read_text() == flows.steps(2)
    assert await blobhub("definition", "diff", file, stored) == ""
    other = written(tmp_path / "other.json", flows.steps(2).replace("n + 1", "n + 2"))
    differs = await blobhub.run("definition", "diff", other, stored)
    assert differs.returncode == ExitCode.DIFFERENT
    assert '-          "value": "n + 1"\n+          "value": "n + 2"' in differs.stdout

    session = (await blobhub.json("session", "create", "acme/pipeline@draft", "--alias", "intake"))["id"]
    intake = "acme/pipeline@draft/intake"
    assert "flow.exited" in await blobhub("run", "steps", "--session", intake)
    started = await blobhub.json("run", stored, "--detach")
    assert started["session_id"] != session
    await blobhub("execution", "watch", started["id"])
    assert len(await blobhub.jsons("execution", "list", "acme/pipeline", "--state", "completed")) == 2
    shown = await blobhub("execution", "show", started["id"])
    assert "\n├─ ✔ add-0 → success\n" in shown
    whole = await blobhub.json("execution", "show", started["id"])
    assert whole["execution"]["result"] == 2
    assert whole["events"][-1]["type"] == "flow.exited"

    await blobhub("session", "object", "put", intake, "topic", '{"n": 1}')
    assert json.loads(await blobhub("session", "object", "get", intake, "topic")) == {"n": 1}
    assert "topic" in await blobhub("session", "object", "list", intake)
    await blobhub("session", "object", "delete", intake, "topic")
    assert "session_object_deleted" in await blobhub("session", "events", intake)
    assert (await blobhub.json("session", "close", intake))["id"] == session
    assert "SESSION_NOT_OPEN" in await blobhub.refused(ExitCode.REFUSED, "run", "steps", "--session", intake)
    await blobhub("definition", "delete", stored)
    assert await blobhub.jsons("definition", "list", "acme/pipeline@draft") == []


async def test_of_a_long_value_people_see_the_beginning_and_programs_all(blobhub: CommandLine, tmp_path: Path) -> None:
    file = written(tmp_path / "echo.json", flows.code(TALK))
    await blobhub("definition", "run", file, "-i", f"given={'long ' * 1_000}")
    (ran,) = await blobhub.jsons("execution", "list", "administrator-scratch/echo")
    assert " … and 4,002 characters more, which --json shows\n" in await blobhub("execution", "show", ran["id"])
    assert (await blobhub.json("execution", "show", ran["id"]))["execution"]["result"] == "long " * 1_000


async def test_in_a_terminal_a_run_is_a_live_tree_and_ctrl_c_leaves_it_running(
    blobhub: CommandLine, api: Api, server: Served, tmp_path: Path
) -> None:
    hold = json.loads(flows.code(TALK))
    hold["components"].append(flows.component("hold", "flow.delay", seconds=3600))
    hold["connections"].append(flows.control("start", "hold"))
    file = written(tmp_path / "talk.json", json.dumps(hold))
    async with terminal([SCRIPT, "definition", "run", file, "-i", "given:=3"], blobhub.environment) as person:
        await person.shows("waits until")
        await person.shows('{"progress": 0.5}')
        person.type("\x03")
        assert await person.ended() == ExitCode.INTERRUPTED
        same_as_golden("cli_interrupted", normal(person.text, address=server.address))
    (running,) = await blobhub.jsons("execution", "list", "administrator-scratch/talk")
    assert running["state"] in ("EXECUTION_STATE_RUNNING", "EXECUTION_STATE_WAITING")

    async with terminal([SCRIPT, "execution", "watch", running["id"]], blobhub.environment) as person:
        await person.shows("waits until")
        await blobhub("execution", "stop", running["id"])
        assert await person.ended() == ExitCode.STOPPED
        same_as_golden("cli_stopped", normal(person.text))


async def test_a_watched_file_runs_again_when_it_changes(blobhub: CommandLine, tmp_path: Path) -> None:
    file = written(tmp_path / "steps.json", flows.steps(1))
    async with terminal([SCRIPT, "definition", "run", file, "--watch-file"], blobhub.environment) as person:
        await person.shows("runs again when")
        written(tmp_path / "steps.json", flows.steps(3))
        await person.shows("add-2")
        await until(lambda: person.text.count("runs again when") == 2)
        person.type("\x03")
        assert await person.ended() == ExitCode.INTERRUPTED
        assert person.text.count("completed") == 4
