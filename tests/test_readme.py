"""The README's tour works as printed, with the real grpcurl, through reflection, and so does its program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from served import ServerProcess

ROOT = Path(__file__).resolve().parent.parent


def printed(name: str, language: str) -> str:
    """A piece of code in the README."""
    found = re.search(rf"<!-- {name} -->\n```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found is not None
    return found[1]


def run(*command: str, **environment: str) -> str:
    """What a command prints. Fails when it fails."""
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


async def test_the_tour_and_the_program_in_the_readme_work(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    await server.start()
    lines = printed("tour", "sh").replace("bhk_…", server.admin_key).replace("127.0.0.1:7443", server.address)
    lines = lines.replace("/tmp/", f"{tmp_path}/").replace(".venv/bin/grpcurl", str(Path(sys.executable).parent / "grpcurl"))
    lines = lines.replace(".venv/lib/", f"{Path(sys.executable).parent.parent}/lib/")
    said = run("bash", "-euo", "pipefail", "-c", lines)
    assert '"runnable": true' in said
    assert '"number": "1"' in said
    assert '"type": "flow.exited"' in said
    assert '"kind": "small"' in said
    assert '"type": "session_object_modified"' in said
    assert '"status": "FIRING_STATUS_SUCCESS"' in said
    assert '"state": "OPERATION_STATE_SUCCEEDED"' in said
    assert '"name": "target_label"' in said
    assert '"label": "markdown"' in said
    program = tmp_path / "program.py"
    program.write_text(printed("python", "python").replace("127.0.0.1:7443", server.address))
    assert run(sys.executable, str(program), KEY=server.admin_key).splitlines()[-1] == "flow.exited"
    assert server.stop() == 0
