"""What the processes of a run hand over to the one that began it, and the search for secrets at its end.

A run may be spread over processes (pytest-xdist). Each records what comes out of its tests (outputs.py) and knows the
secrets that it planted (marked.py); any of these may get out in any other's outputs. So outputs, databases and files stay
in one folder until the last test has ended, the secrets are handed over, and one search looks for all of them everywhere.
"""

from __future__ import annotations

import asyncio
import base64
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from databases import POSTGRES, postgres_in
from disguises import Leak, Scanner
from marked import ISSUED, planted
from outputs import Recording, leaks_in_outputs, size_of_outputs
from scale import scaled
from stored import leaks_in_postgres, leaks_in_tree

OUTPUTS = "outputs"
SEARCH = "tests/handover.py::no output of the whole run holds a secret"
"""What the search is called among the tests."""

KINDS_OF_OUTPUT = ("answers", "errors", "logs")


def least() -> Mapping[str, int]:
    """The least that a run of all tests has of everything; with less, something is no longer recorded."""
    sizes = {"answers": 20_000_000, "errors": 1_000_000, "logs": 1_000_000, "stored": 50_000_000}
    return {"secrets": 300} | {name: scaled(size, least=size // 10) for name, size in sizes.items()}


class Part:
    """What a process that runs tests records, and the folder for that inside the run's."""

    def __init__(self, run: Path, name: str) -> None:
        self.folder = run / name
        self.folder.mkdir(mode=0o711)
        self.recording = Recording(self.folder / OUTPUTS)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record what a test, and the servers it ran, wrote."""
        self.recording.report(report)

    def pytest_unconfigure(self) -> None:
        """End the recording, where the end of the session did not."""
        self.recording.close()


class Whole:
    """Pytest's side of the process that began the run: it gathers, searches and tidies up."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._problems: list[str] = []
        self._files: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which files of tests run, where they run in this process."""
        self._files |= {item.nodeid.partition("::")[0] for item in session.items}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the run's folder is."""
        node.workerinput["run"] = str(self._run)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Note which files of tests run."""
        del node
        self._files |= {id_.partition("::")[0] for id_ in ids}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take a worker's secrets. One that died takes its own with it; then nobody can look for them."""
        del error
        output = getattr(node, "workeroutput", None) or {}
        if "secrets" not in output:
            self._problems.append(f"{node.gateway.id} ended without handing over its secrets")
        if "late" in output:
            self._problems.append(f"{node.gateway.id} logged after its last test:\n{output['late']}")
        ISSUED.update(output.get("secrets", {}))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Search, and count the search among the tests."""
        if session.config.option.collectonly or not self._files:
            return
        problem, told = self._search(session.config)
        if problem:
            session.testsfailed += 1
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.testscollected += 1
        outcome = "failed" if problem else "passed"
        location = ("tests/handover.py", None, SEARCH.rpartition("::")[2])
        report = pytest.TestReport(SEARCH, location, {}, outcome, problem or None, "call", [("found", told)])
        session.config.hook.pytest_runtest_logreport(report=report)

    def pytest_unconfigure(self) -> None:
        """Leave nothing of the run but the folders that pytest keeps."""
        shutil.rmtree(self._run, ignore_errors=True)

    def _search(self, config: pytest.Config) -> tuple[str, str]:
        """What is wrong, if anything, and what was searched, in words."""
        start = time.monotonic()
        leaks, found = search(self._run, _basetemp(config))
        print(f"\n{found} searched for secrets in {time.monotonic() - start:.0f} s, {len(leaks)} found")
        problems = [*map(str, sorted(leaks)), *self._problems]
        if self._runs_all(config):
            problems += [f"only {found[name]} of {name}" for name, count in least().items() if found[name] < count]
        return "\n".join(problems), str(found)

    def _runs_all(self, config: pytest.Config) -> bool:
        """Whether every file of tests ran, whole, with its output captured."""
        files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
        chosen = config.option.keyword or config.option.markexpr or config.option.capture != "fd" or config.option.maxfail
        return not chosen and files <= {Path(name).name for name in self._files}


def search(run: Path, temporary: Path) -> tuple[set[Leak], dict[str, int]]:
    """The leaks in everything that a run left, and how much there was of each kind.

    Places are searched side by side, by processes of their own: the scanner does not let other threads run.
    """
    plant_master_keys(temporary)
    folders = [path for path in run.glob(f"*/{OUTPUTS}") if path.is_dir()]
    found = {"secrets": len(ISSUED)}
    found |= {kind: sum(size_of_outputs(folder, kind) for folder in folders) for kind in KINDS_OF_OUTPUT}
    stored = [(leaks_in_tree, temporary), *((_leaks_in_postgres, folder) for folder in run.glob(f"*/{POSTGRES}"))]
    printed = [(leaks_in_outputs, folder) for folder in folders]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _make_scanner, [dict(ISSUED)]) as pool:
        searches = [pool.submit(_search_place, leaks_in, place) for leaks_in, place in (*stored, *printed)]
        searched = [search.result() for search in searches]
    found["stored"] = sum(scanned for _, scanned in searched[: len(stored)])
    return {leak for leaks, _ in searched for leak in leaks}, found


def _leaks_in_postgres(scanner: Scanner, folder: Path) -> set[Leak]:
    with postgres_in(folder) as server:
        return asyncio.run(leaks_in_postgres(scanner, server))


_scanner: Scanner
"""What a process that searches looks with."""


def _make_scanner(secrets: Mapping[str, str]) -> None:
    global _scanner  # noqa: PLW0603  how a pool gives its processes what all of their work needs
    _scanner = Scanner(secrets)


def _search_place(leaks_in: Callable[[Scanner, Path], set[Leak]], place: Path) -> tuple[set[Leak], int]:
    """The leaks in a place, and how many bytes it had."""
    before = _scanner.scanned
    return leaks_in(_scanner, place), _scanner.scanned - before


def plant_master_keys(folder: Path) -> None:
    """Every key that credentials were sealed under: as it is written, and as it is."""
    for path in filter(Path.is_file, folder.rglob("master-key")):
        for key in re.findall(r"^[\w+/]{43}=", path.read_text(errors="replace"), re.M):
            planted(key, "a master key")
            planted(base64.b64decode(key).hex(), "a master key")


def _basetemp(config: pytest.Config) -> Path:
    """Where the tests' temporary folders are, those of all workers."""
    factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]  # there is no public way outside of a test
    return factory.getbasetemp()


def pytest_configure(config: pytest.Config) -> None:
    """Take this process's part, or begin the run, or both where there is one process."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        config.pluginmanager.register(Part(Path(worker["run"]), worker["workerid"]), "part")
        return
    run = Path(tempfile.mkdtemp(prefix="bh-run-", dir="/tmp"))
    run.chmod(0o711)
    config.pluginmanager.register(Whole(run), "whole")
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.register(Part(run, "alone"), "part")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: a test waits for PostgreSQL, or for a server process, much of its time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the recording, and hand over the secrets."""
    part: Part | None = session.config.pluginmanager.get_plugin("part")
    if part is None:
        return
    part.recording.close()
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["secrets"] = dict(ISSUED)


@pytest.fixture(scope="session")
def part_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of this process's part of the run; what is in it is searched at the end."""
    part: Part = request.config.pluginmanager.get_plugin("part")
    return part.folder
