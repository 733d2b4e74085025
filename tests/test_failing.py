"""Small inputs that once failed, in `failing/`, speak today's contract. What is right for each is held where it is mended.

A file of JSON is a definition, or cases to check and put; `run.py` tries it. A script needs a server of its own, as it says;
those that need two servers, a database to disturb, or what is not mended yet are run by hand.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from served import served

FOLDER = Path(__file__).resolve().parent / "failing"
INPUTS = sorted(path.name for path in FOLDER.glob("*.json*"))
RIGHT = {
    "expression-stops-the-server.py": (),
    "watch-batch-over-4-mib.py": ("watch: all", "client: all", "list: fine", "run with 1 MiB input: fine"),
}
"""The scripts, with what each prints where all is right: the beginnings of its lines."""
FOREIGN = ("INVALID_REQUEST", "UNDECODABLE_REQUEST", "UNIMPLEMENTED", "Protocol message")
"""What is said of a request that is of another contract."""


async def run(tmp_path: Path, *arguments: str) -> str:
    """Run a script of the folder beside a server of its own; return what it prints."""
    async with served(tmp_path, None) as server:
        environment = os.environ | {"ADDRESS": server.address, "KEY": server.admin_key, "SIZE": "20"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=FOLDER,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


@pytest.mark.parametrize("name", INPUTS)
async def test_an_input_that_failed_speaks_the_contract(tmp_path: Path, name: str) -> None:
    printed = await run(tmp_path, "run.py", name)
    assert "put: " in printed
    assert not [word for word in FOREIGN if word in printed], printed


@pytest.mark.parametrize("name", RIGHT)
async def test_a_script_that_showed_a_failure_speaks_the_contract(tmp_path: Path, name: str) -> None:
    printed = await run(tmp_path, name)
    assert not [word for word in FOREIGN if word in printed], printed
    if RIGHT[name]:
        lines = printed.splitlines()
        assert len(lines) == len(RIGHT[name]), printed
        assert all(line.startswith(right) for line, right in zip(lines, RIGHT[name], strict=True)), printed
