"""A run does not pass over what goes wrong beside its tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

NOISY = {
    "a task whose exception nobody retrieves": """
        async def test_it():
            async def fail():
                raise ZeroDivisionError
            asyncio.create_task(fail())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gc.collect()
    """,
    "a task that is collected while it waits": """
        async def test_it():
            asyncio.create_task(asyncio.Event().wait())
            await asyncio.sleep(0)
            gc.collect()
    """,
    "a callback of the loop that fails": """
        async def test_it():
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(0.01)
    """,
    "a coroutine that is never awaited": """
        def test_it():
            asyncio.sleep(0)
            gc.collect()
    """,
    "a file that is never closed": """
        def test_it():
            open(__file__)
            gc.collect()
    """,
    "a thread that fails": """
        def test_it():
            thread = threading.Thread(target=lambda: 1 / 0)
            thread.start()
            thread.join()
    """,
    "a warning": """
        def test_it():
            warnings.warn("this goes away", DeprecationWarning)
    """,
    "a handler of gRPC's that fails": """
        async def test_it():
            logging.getLogger("grpc._cython.cygrpc").error("Unexpected error raised by servicer method")
    """,
}


@pytest.mark.parametrize("what", NOISY)
def test_a_noisy_test_fails(what: str, tmp_path: Path) -> None:
    file = tmp_path / "test_noisy.py"
    file.write_text(f"import asyncio, gc, logging, threading, warnings\nif True:\n{NOISY[what]}")
    configuration = HERE.parent / "pyproject.toml"
    command = [sys.executable, "-m", "pytest", "-c", configuration, "-p", "noise", "--rootdir", tmp_path, file]
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, ran.stdout + ran.stderr
