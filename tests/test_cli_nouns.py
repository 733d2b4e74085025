"""The command line with keys and credentials, models and schedules, and what is watched."""

from __future__ import annotations

import json
from pathlib import Path

import flows
import marked
import onnx_models
import pytest
from blobhub_cli.failures import ExitCode
from command_line import SCRIPT, CommandLine
from pseudo_terminal import terminal
from runs import run
from served import Api, Served

pytestmark = pytest.mark.either_database


async def test_secrets_come_from_standard_input_and_are_shown_once_or_never(
    blobhub: CommandLine, server: Served, config_home: Path
) -> None:
    await blobhub("org", "create", "acme")
    made = await blobhub.json("key", "create", "acme", "--role", "write")
    key = marked.planted(made["key"], "a key from the command line")
    hub = CommandLine(config_home, BLOBHUB_ADDRESS=server.address, BLOBHUB_API_KEY=key)
    assert (await hub.json("whoami"))["roles"] == [
        {"organization_id": made["api_key"]["organization_id"], "reference": "acme", "role": "ROLE_WRITE"}
    ]
    rotated = await blobhub.json("key", "rotate", made["api_key"]["id"])
    marked.planted(rotated["key"], "a rotated key from the command line")
    assert (await blobhub.json("key", "list", "acme", "--valid"))["id"] == rotated["api_key"]["id"]
    assert "revoke_time" in await blobhub.json("key", "revoke", rotated["api_key"]["id"])

    secret = json.dumps({"token": marked.secret("a credential from the command line")})
    stored = await blobhub("credential", "create", "acme", "openai", "-t", "openai", stdin=secret)
    assert "token" not in stored
    refused = await blobhub.refused(ExitCode.USAGE, "credential", "create", "acme", "other", "-t", "x", stdin='"text"')
    assert "--field" in refused
    assert "nothing came" in await blobhub.refused(ExitCode.USAGE, "credential", "create", "acme", "other", "-t", "x")
    async with terminal(
        [SCRIPT, "credential", "create", "acme", "typed", "-t", "openai", "--field", "api_key"], blobhub.environment
    ) as person:
        await person.shows("Secret:")
        typed = marked.secret("a secret that was typed")
        person.type(f"{typed}\n")
        assert await person.ended() == ExitCode.DONE
        assert typed not in person.text
        assert "typed" in person.text


async def test_a_model_goes_up_with_a_bar_and_one_that_is_none_is_refused(blobhub: CommandLine, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx_models.relu().SerializeToString())
    (tmp_path / "garbage.onnx").write_bytes(b"no model at all")
    await blobhub("org", "create", "acme")
    await blobhub("blob", "create", "acme/scorer", "--type", "onnx")
    failed = await blobhub.run("model", "upload", str(tmp_path / "garbage.onnx"), "acme/scorer@draft")
    assert failed.returncode == ExitCode.FAILED
    assert "is failed" in failed.stdout
    async with terminal([SCRIPT, "model", "upload", str(model), "acme/scorer@draft"], blobhub.environment) as person:
        assert await person.ended() == ExitCode.DONE
        assert "sending model.onnx ━" in person.text
        assert "is succeeded" in person.text
    await blobhub("model", "download", "acme/scorer@draft", "--to", str(tmp_path / "copy.onnx"))
    assert (tmp_path / "copy.onnx").read_bytes() == model.read_bytes()
    answer = await blobhub.json("model", "infer", "acme/scorer@draft", "-i", "x:=[-1, 2]")
    assert answer == {"name": "y", "datatype": "FP32", "shape": [2], "value": [0.0, 2.0]}
    refused = await blobhub.refused(ExitCode.USAGE, "model", "infer", "acme/scorer@draft", "-i", "z:=[1]")
    assert "its inputs: x" in refused
    assert (await blobhub.json("model", "describe", "acme/scorer@draft"))["outputs"][0]["name"] == "y"
    assert "Relu" in await blobhub("model", "graph", "acme/scorer@draft")
    states = {each["state"] for each in await blobhub.jsons("operation", "list", "acme/scorer")}
    assert states == {"OPERATION_STATE_FAILED", "OPERATION_STATE_SUCCEEDED"}


async def test_a_definition_is_drawn_and_an_execution_on_it(blobhub: CommandLine, api: Api, tmp_path: Path) -> None:
    execution = (await run(api, await api.session(flows.steps(1)))).id
    graph = ("definition", "graph")
    drawn = await blobhub(*graph, "acme/pipeline@draft/workflow")
    assert drawn.splitlines()[0] == "flowchart TD"
    assert "done" not in drawn
    assert "1 done" in await blobhub(*graph, "--execution", execution)
    answer = await blobhub.json(*graph, "acme/pipeline@draft/workflow", "--execution", execution, "--format", "dot")
    assert answer["text"].startswith("digraph definition {")
    assert set(answer) == {"text", "digest", "execution_sequence"}
    file = tmp_path / "steps.json"
    file.write_text(flows.steps(1))
    assert "flowchart TD" in (await blobhub.json(*graph, str(file)))["text"]
    assert "store it first" in await blobhub.refused(ExitCode.USAGE, *graph, str(file), "--format", "dot")
    assert "which definition" in await blobhub.refused(ExitCode.USAGE, *graph)
    assert "is one of" in await blobhub.refused(ExitCode.USAGE, *graph, "acme/pipeline@draft/workflow", "--format", "svg")
    await api.put(flows.document([flows.component(f"c{number}", "flow.join") for number in range(301)], []))
    done = await blobhub.run(*graph, "acme/pipeline@draft/workflow")
    assert "1 components and 0 connections are not in it" in done.stderr


async def test_a_schedule_is_previewed_over_the_change_of_clocks_and_its_firings_are_watched(
    blobhub: CommandLine, api: Api
) -> None:
    await api.session(flows.steps(1))
    await api.publish()
    await blobhub("blob", "create", "acme/nightly", "--type", "scheduler")
    at = ("--cron", "30 2 * * *", "-z", "Europe/Berlin")
    shown = await blobhub("schedule", "preview", "acme/nightly@draft", *at, "-n", "2", "--after", "2027-03-27")
    first, second = shown.splitlines()[-2:]
    assert "2027-03-27T02:30:00" in first
    assert "the clock has been changed" in second
    run = ("--run", "acme/pipeline@1/workflow")
    both = ("--cron", "0 9 * * *", "--at", "2027-01-01T00:00:00")
    refused = await blobhub.refused(ExitCode.USAGE, "schedule", "create", "acme/nightly@draft/a", *both, *run)
    assert "give one of them" in refused
    await blobhub("schedule", "create", "acme/nightly@draft/a", *at, *run, "--overlap", "queue-one")
    assert (await blobhub.json("schedule", "get", "acme/nightly@draft/a"))["spec"]["overlap"] == "OVERLAP_POLICY_QUEUE_ONE"
    async with terminal([SCRIPT, "schedule", "history", "acme/nightly", "--follow"], blobhub.environment) as person:
        fired = await blobhub.json("schedule", "trigger", "acme/nightly@default/a")
        await person.shows(f"triggered  success  completed  {fired['execution_id']}")
        person.type("\x03")
        assert await person.ended() == ExitCode.INTERRUPTED
    listed = await blobhub("schedule", "history", "acme/nightly")
    assert "triggered" in listed
    await blobhub("schedule", "pause", "acme/nightly@default/a", "--note", "later")
    assert (await blobhub.json("schedule", "list", "acme/nightly@draft", "--state", "paused"))["alias"] == "a"


async def test_metadata_limits_members_and_the_audit_log(blobhub: CommandLine) -> None:
    await blobhub("org", "create", "acme")
    await blobhub("blob", "create", "acme/pipeline")
    exact = 2**63 - 1
    await blobhub("metadata", "create", "acme/pipeline", "big", str(exact), "--description", "as it is")
    changed = await blobhub.json("metadata", "update", "acme/pipeline", "big", "--description", "")
    assert (changed["value"], "description" in changed) == (exact, False)
    (resolved,) = await blobhub.jsons("metadata", "resolve", "acme/pipeline@draft", "big")
    assert (resolved["record"]["value"], resolved["source"]) == (exact, "METADATA_SOURCE_BLOB")
    await blobhub("metadata", "delete", "acme/pipeline", "big")
    await blobhub("user", "create", "ann")
    await blobhub("member", "create", "acme", "@ann", "read")
    await blobhub("member", "update", "acme", "@ann", "write")
    assert [line.split()[:2] for line in (await blobhub("member", "list", "acme")).splitlines()[2:]] == [["ann", "write"]]
    await blobhub("member", "delete", "acme", "@ann")
    (limit, *_) = await blobhub.jsons("limit", "list", "acme")
    name = limit["name"]
    assert (await blobhub.json("limit", "set", "acme", name, "7"))["value"] == "7"
    assert (await blobhub.json("limit", "reset", "acme", name))["value"] == limit["value"]
    methods = [each["method"] for each in await blobhub.jsons("watch", "audit", "acme", "--replay")]
    assert methods.count("blobhub.v1.MetadataService/CreateMetadata") == 1
    method = ("--method", "LimitService/UpdateLimit")
    assert len(await blobhub.jsons("audit", "list", "acme", *method)) == 2
    seen = [each["type"] for each in await blobhub.jsons("watch", "blob", "acme/pipeline", "--replay")]
    assert "metadata_deleted" in seen
