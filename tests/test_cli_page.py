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
from command_line import CommandLine

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
        here = [re.sub(r"((?:^|=|@)@?)(README\.md|demo/)", rf"\1{ROOT}/\2", each) for each in arguments]
        await blobhub(*here, stdin=marked.secret("what was typed") if stdin else "")


def test_the_page_has_every_exit_code() -> None:
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)] == list(ExitCode)
