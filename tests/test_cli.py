"""The command line: logging in, profiles, organizations, blobs and revisions, errors and exit codes."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import flows
import pytest
from blobhub.v1 import organization_pb2
from blobhub_cli.failures import ExitCode
from command_line import CommandLine
from scale import scaled
from served import Api, Served

pytestmark = pytest.mark.either_database


async def test_organizations_blobs_and_revisions_live_from_the_command_line(blobhub: CommandLine, api: Api) -> None:
    made = await blobhub.json("org", "create", "acme", "--description", "Pipelines")
    assert (made["alias"], made["description"]) == ("acme", "Pipelines")
    assert (await blobhub.json("org", "get", made["id"]))["etag"] == made["etag"]
    changed = await blobhub.json("org", "update", "acme", "--visibility", "public", "--etag", made["etag"])
    assert (changed["visibility"], changed["description"]) == ("VISIBILITY_PUBLIC", "Pipelines")

    await blobhub("blob", "create", "acme/pipeline")
    await blobhub("blob", "create", "acme/kinds", "--type", "onnx")
    assert (await blobhub.json("blob", "list", "acme", "--type", "onnx"))["alias"] == "kinds"
    await blobhub("blob", "update", "acme/pipeline", "--alias", "summaries")
    assert "workflow" in await blobhub("blob", "types")

    await blobhub("revision", "update", "acme/summaries@draft", "-m", "A first one")
    assert "at least one definition" in await blobhub.refused(ExitCode.REFUSED, "revision", "commit", "acme/summaries@draft")
    await api.put(flows.steps(1), revision="acme/summaries@draft")
    commit = await blobhub.json("revision", "commit", "acme/summaries@draft")
    assert (commit["phase"], commit["comment"]) == ("REVISION_PHASE_COMMIT", "A first one")
    snapshot = await blobhub.json("revision", "publish", commit["id"], "--label", "first")
    assert (snapshot["number"], snapshot["label"]) == ("1", "first")
    draft = await blobhub.json("revision", "draft", "acme/summaries", "--base", "1")
    assert await blobhub.jsons("revision", "diff", "acme/summaries@draft", "acme/summaries@1") == [{"unchanged": "1"}]
    await blobhub("revision", "discard", draft["id"])
    assert [each["phase"] for each in await blobhub.jsons("revision", "list", "acme/summaries")] == [snapshot["phase"]]
    assert (await blobhub.json("revision", "get", "acme/summaries"))["id"] == commit["id"]
    assert "revision" not in await blobhub("revision", "dependents", "acme/summaries@1")

    assert "--yes" in await blobhub.refused(ExitCode.USAGE, "org", "delete", "acme", "--cascade")
    assert await blobhub("org", "delete", "acme", "--cascade", "--yes") == "deleted acme\n"


async def test_lists_are_tables_for_people_and_go_over_all_pages(blobhub: CommandLine, api: Api) -> None:
    count = scaled(1_100, least=60)
    for number in range(count):
        request = organization_pb2.CreateOrganizationRequest(alias=f"team-{number:04}", description="two\nlines")
        await api.organizations.CreateOrganization(request)
    every = await blobhub("org", "list", "--limit", "0", "--order-by", "alias")
    heading, *rows = every.splitlines()
    assert heading.split() == ["ALIAS", "VISIBILITY", "DESCRIPTION", "UPDATED", "ID"]
    assert [row.split()[0] for row in rows] == [f"team-{number:04}" for number in range(count)]
    assert all(row.split()[1:4] == ["private", "two", "lines"] for row in rows)
    assert len(await blobhub.jsons("org", "list", "--prefix", "team-", "--limit", "0")) == count
    some = await blobhub.run("org", "list", "--limit", "51")
    assert len(some.stdout.splitlines()) == 52
    assert "more than 51" in some.stderr


async def test_what_is_refused_is_said_with_its_reason_and_what_to_do_next(blobhub: CommandLine) -> None:
    await blobhub("org", "create", "acme")
    said = await blobhub.refused(ExitCode.CONFLICT, "org", "create", "acme")
    assert said.startswith("blobhub: ALREADY_EXISTS: ")
    assert "\nnext: choose another alias" in said
    said = await blobhub.refused(ExitCode.NOT_FOUND, "blob", "get", "acme/nothing")
    assert "NOT_FOUND" in said
    said = await blobhub.refused(ExitCode.REFUSED, "org", "create", "No Alias")
    assert "INVALID_REQUEST" in said
    assert "alias" in said
    assert "blobhub org create --help" in said
    said = await blobhub.refused(ExitCode.CONFLICT, "org", "update", "acme", "--alias", "b", "--etag", "stale")
    assert "STALE_ETAG" in said
    await blobhub("blob", "create", "acme/pipeline")
    assert "--cascade" in await blobhub.refused(ExitCode.REFUSED, "org", "delete", "acme")
    assert "private, public" in await blobhub.refused(ExitCode.USAGE, "org", "update", "acme", "--visibility", "hidden")
    assert "ORGANIZATION/ALIAS" in await blobhub.refused(ExitCode.USAGE, "blob", "create", "pipeline")
    assert "Usage" in await blobhub.refused(ExitCode.USAGE, "blob", "paint", "acme/pipeline")
    error = json.loads(await blobhub.refused(ExitCode.NOT_FOUND, "blob", "get", "acme/nothing", "--json"))["error"]
    assert (error["exit_code"], error["reason"], error["domain"]) == (5, "NOT_FOUND", "blobhub")


async def test_what_others_wrote_does_not_steer_the_terminal(blobhub: CommandLine, api: Api) -> None:
    hostile = "\x1b]0;owned\x07\x1b[31mred\x9b5m"
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme", description=hostile))
    assert "\\x1b]0;owned\\x07" in await blobhub("org", "get", "acme")
    assert "\\x9b5m" in await blobhub("org", "list")
    assert (await blobhub.json("org", "get", "acme"))["description"] == hostile


async def test_a_login_is_kept_in_a_file_of_its_owner_and_used_from_then_on(server: Served, config_home: Path) -> None:
    hub = CommandLine(config_home)
    refused = await hub.refused(ExitCode.NOT_ALLOWED, "login", server.address, stdin="bhk_wrong_key")
    assert "UNAUTHENTICATED" in refused
    assert list(config_home.iterdir()) == []
    said = await hub("login", server.address, stdin=f"{server.admin_key}\n")
    assert server.address in said
    kept = config_home / "blobhub" / "profiles.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert (await hub.json("whoami"))["caller"]["administrator"]

    await hub("login", server.address, "--profile", "second", stdin=server.admin_key)
    listed = await hub("profile", "list")
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["default", server.address], ["*", "second"]]
    assert server.admin_key not in listed
    await hub("logout", "--profile", "second")
    assert (await hub.json("whoami"))["caller"]["anonymous"]
    assert (await hub.json("whoami", "--profile", "default"))["caller"]["administrator"]
    await hub("profile", "use", "default")
    await hub("profile", "remove", "second")
    assert "there are: default" in await hub.refused(ExitCode.USAGE, "whoami", "--profile", "second")

    kept.chmod(0o644)
    assert f"chmod 600 {kept}" in await hub.refused(ExitCode.USAGE, "whoami")
    kept.write_text("{")
    assert f"rm {kept}" in await hub.refused(ExitCode.USAGE, "whoami")


async def test_the_key_of_a_profile_goes_to_its_server_and_to_no_other(server: Served, config_home: Path) -> None:
    hub = CommandLine(config_home)
    await hub("login", server.address, stdin=server.admin_key)
    other = f"localhost:{server.address.rpartition(':')[2]}"
    assert (await hub.json("whoami", "--address", other))["caller"]["anonymous"]
    hub.environment["BLOBHUB_ADDRESS"] = other
    assert (await hub.json("whoami"))["caller"]["anonymous"]
    hub.environment["BLOBHUB_API_KEY"] = server.admin_key
    assert (await hub.json("whoami"))["caller"]["administrator"]


async def test_where_no_server_answers_the_command_says_so_at_once(config_home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = await CommandLine(config_home).refused(ExitCode.UNREACHABLE, "org", "list", "--address", address)
    assert f"no server answers at {address}" in said
    assert "next: start a server there" in said
