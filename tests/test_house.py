"""How the tree is written: what a reader may rely on wherever they look."""

from __future__ import annotations

import ast
import subprocess
from graphlib import TopologicalSorter

import grimp
from tree import ROOT, modules, records_by_position

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ROOMS = 9
LEAST_NAMED_FIELDS = 3
"""Nobody can be expected to know the order of so many fields."""


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {name: len(module.path.read_text().splitlines()) for name, module in modules().items()}
    assert {name: length for name, length in lengths.items() if length > MAX_MODULE_LINES} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    assert {
        f"{module.place(node)} {node.name}": node.end_lineno - node.lineno + 1
        for module in modules().values()
        if ".migrations." not in module.name  # A migration is one list of statements.
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    } == {}


def test_imports_of_the_server_have_no_circle() -> None:
    """Those inside functions count. Which layer may import which is held by import-linter, in `pyproject.toml`."""
    graph = grimp.build_graph("blobhub_server", exclude_type_checking_imports=True)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(list(TopologicalSorter(imported).static_order())) == len(graph.modules) > 100


def test_the_platform_has_at_most_nine_rooms() -> None:
    rooms = grimp.build_graph("blobhub_server").find_children("blobhub_server.platform")
    assert 0 < len(rooms) <= MAX_ROOMS


def test_records_are_built_by_keyword() -> None:
    calls = (
        module.place(call) for module in modules().values() for call, _ in records_by_position(module, LEAST_NAMED_FIELDS)
    )
    assert sorted(calls) == []


def test_no_test_module_imports_another() -> None:
    """What two of them need is in a module of its own, named for what is in it."""
    found = {
        (name, imported)
        for name, module in modules().items()
        for imported in module.imported.values()
        if imported.startswith("test_")
    }
    assert found == set()


def test_no_merge_was_left_unfinished() -> None:
    marked = subprocess.run(["git", "grep", "-lE", "^(<{7}|>{7}) "], cwd=ROOT, capture_output=True, text=True, check=False)
    assert marked.stdout == ""
