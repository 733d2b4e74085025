"""The page of the command line says what is so: its examples run, its exit codes are those there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import marked
import numpy
import onnx_models
import pytest
from blobhub_cli.failures import ExitCode
from command_line import SCRIPT, CommandLine
from pseudo_terminal import terminal
from served import Served

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "cli.md").read_text()
pytestmark = pytest.mark.either_database


def examples() -> list[str]:
    """The lines of the page that are commands, but for those of the beginning."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.S)[1:]
    return [line for block in blocks for line in block.splitlines() if line]


async def test_the_examples_of_the_page_run(blobhub: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_models.relu().SerializeToString())
    numpy.save(tmp_path / "x.npy", numpy.array([-1, 2], numpy.float32))
    for line in examples():
        command, _, stdin = line.partition(" < ")
        script, *arguments = shlex.split(command.replace("/tmp/", f"{tmp_path}/"), comments=True)
        assert script == "blobhub"
        await blobhub(*map(from_here, arguments), stdin=marked.secret("what was typed") if stdin else "")


async def test_three_commands_lead_from_pip_to_the_first_event(server: Served, config_home: Path) -> None:
    hub = CommandLine(config_home)
    installed, login, run = three_commands()
    assert installed == "pip install 'blobhub-client[cli]'"
    script, *arguments = shlex.split(login.replace("127.0.0.1:7443", server.address), comments=True)
    assert script == "blobhub"
    async with terminal([SCRIPT, *arguments], hub.environment) as person:
        await person.shows("Key:")
        person.type(f"{server.admin_key}\n")
        assert await person.ended() == ExitCode.DONE
        assert server.admin_key not in person.text
    script, *arguments = shlex.split(run, comments=True)
    assert script == "blobhub"
    async with terminal([SCRIPT, *map(from_here, arguments)], hub.environment) as person:
        assert await person.ended() == ExitCode.DONE, person.text
        assert "document_summary  completed" in person.text
        assert "├─ ✔ Split into sections → success" in person.text


def three_commands() -> list[str]:
    """The first block of the page, which the README has as well."""
    first = re.search(r"```sh\n(.*?)```", PAGE, re.S)
    assert first is not None
    lines = first[1].splitlines()
    readme = (ROOT / "README.md").read_text()
    for line in lines:
        assert f"\n{line.partition('  #')[0].rstrip()}" in readme
    return [line.partition("  #")[0].rstrip() for line in lines]


def from_here(argument: str) -> str:
    """An argument with the whole path of a file in the tree."""
    return re.sub(r"((?:^|=|@)@?)(README\.md|demo/)", rf"\1{ROOT}/\2", argument)


def test_the_page_has_every_exit_code() -> None:
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)] == list(ExitCode)
