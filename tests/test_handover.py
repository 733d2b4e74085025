"""The end of a run that is spread over processes: a secret of one that gets out in another's output is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent

CONFTEST = """
pytest_plugins = ["scale", "databases", "handover"]
"""

ACROSS = """
import os, pathlib, sys, time
import pytest
from marked import secret

KEPT = pathlib.Path(__file__).parent / "kept"

def told(text):
    while not KEPT.exists():
        time.sleep(0.01)
    return KEPT.read_text()

@pytest.mark.parametrize("number", range(8))
def test_one_plants_a_secret_and_the_other_prints_it(number, tmp_path):
    if os.environ["PYTEST_XDIST_WORKER"] == "gw0":
        part = KEPT.with_suffix(".part")
        part.write_text(secret("what gw0 keeps"))
        part.rename(KEPT)
        while not KEPT.with_suffix(".printed").exists():
            time.sleep(0.01)
    else:
        text = told(KEPT)
        if LEAKS:
            print(text, file=sys.stderr)
            (tmp_path / "note").write_text(text)
        KEPT.with_suffix(".printed").touch()
"""

STORED = """
import asyncpg, pytest
from marked import secret

async def test_a_database_holds_a_secret(postgres):
    connection = await asyncpg.connect(postgres.get_uri())
    await connection.execute("CREATE TABLE leaks (text TEXT)")
    await connection.execute("INSERT INTO leaks VALUES ($1)", secret("what is stored"))
    await connection.close()
"""

DYING = """
import os
def test_a_worker_dies():
    os._exit(1)
"""


def run(folder: Path, test: str, *arguments: str) -> tuple[int, str]:
    """Run a suite of one file with our plugins; its exit code and what it printed, the last part of it."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_run.py").write_text(test)
    config = f"[pytest]\npythonpath = {TESTS}\nasyncio_mode = auto\n"
    (folder / "pytest.ini").write_text(
        config + "asyncio_default_fixture_loop_scope = session\nasyncio_default_test_loop_scope = session\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'temporary'}"]
    done = subprocess.run(
        [*command, *arguments, str(folder)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_secret_of_one_worker_is_found_in_the_outputs_of_another(tmp_path: Path) -> None:
    code, text = run(tmp_path, ACROSS.replace("LEAKS", "True"), "-n2")
    assert code == pytest.ExitCode.TESTS_FAILED, text
    assert "logs holds what gw0 keeps, plain" in text
    assert "note holds what gw0 keeps, plain" in text
    assert "1 failed, 8 passed" in text


def test_a_run_without_a_leak_passes(tmp_path: Path) -> None:
    code, text = run(tmp_path, ACROSS.replace("LEAKS", "False"), "-n2")
    assert code == pytest.ExitCode.OK, text
    assert "9 passed" in text


@pytest.mark.parametrize("processes", ["-n0", "-n1"])
def test_what_is_stored_in_a_database_that_was_stopped_is_searched(tmp_path: Path, processes: str) -> None:
    code, text = run(tmp_path, STORED, processes)
    assert code == pytest.ExitCode.TESTS_FAILED, text
    assert "postgres.leaks holds what is stored, plain" in text


def test_a_worker_that_dies_with_its_secrets_fails_the_run(tmp_path: Path) -> None:
    code, text = run(tmp_path, DYING, "-n2", "--max-worker-restart=0")
    assert code == pytest.ExitCode.TESTS_FAILED, text
    assert "ended without handing over its secrets" in text
