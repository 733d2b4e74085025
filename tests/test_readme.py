"""The README's tour works as printed, with the real grpcurl, through reflection."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from served import ServerProcess

ROOT = Path(__file__).resolve().parent.parent


async def test_the_tour_in_the_readme_works(tmp_path: Path) -> None:
    printed = re.search(r"<!-- tour -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert printed is not None
    server = ServerProcess(tmp_path / "data")
    await server.start()
    lines = printed[1].replace("bhk_…", server.admin_key).replace("127.0.0.1:7443", server.address)
    lines = lines.replace("/tmp/definition.json", str(tmp_path / "definition.json"))
    lines = lines.replace(".venv/bin/grpcurl", str(Path(sys.executable).parent / "grpcurl"))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", lines], cwd=ROOT, capture_output=True, text=True, check=False)
    assert server.stop() == 0
    assert done.returncode == 0, done.stderr
    assert '"runnable": true' in done.stdout
    assert '"number": "1"' in done.stdout
    assert '"type": "flow.exited"' in done.stdout
    assert '"kind": "small"' in done.stdout
    assert '"type": "session_object_modified"' in done.stdout
