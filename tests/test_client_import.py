"""What a program takes in with the client: the stubs and gRPC, nothing of the server, nothing of the command line."""

from __future__ import annotations

import subprocess
import sys

LOADED = "import sys, blobhub_client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
NOT_LOADED = {
    "blobhub_server",
    "blobhub_cli",
    "typer",
    "rich",
    "pydantic",
    "sqlalchemy",
    "protovalidate",
    "structlog",
    "numpy",
}


def test_the_client_pulls_in_nothing_of_the_server_or_of_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"blobhub", "grpc"} <= loaded
    assert loaded & NOT_LOADED == set()


def test_without_its_extra_the_command_line_says_what_to_install() -> None:
    script = "import sys; sys.modules['typer'] = None; from blobhub_cli.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'blobhub-client[cli]'" in done.stderr
