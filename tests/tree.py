"""The tree as it is written: its modules, parsed, and the records that they declare and build."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOTS = (ROOT / "server", ROOT / "clients/python", ROOT / "tests/stranger", ROOT / "tests", ROOT / "tools", ROOT)
"""Where imports begin, innermost first. The last one is that of `demo`."""
WRITTEN = ("server", "clients", "tools", "demo", "tests")
GENERATED = ("_pb2.py", "_pb2_grpc.py")


@dataclass
class Module:
    path: Path
    name: str
    tree: ast.Module
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)
    """Names in the module, and the full names of what they were imported from."""

    def place(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"


@cache
def modules() -> dict[str, Module]:
    """Every module that was written by hand, by its full name."""
    found = (path for top in WRITTEN for path in sorted((ROOT / top).rglob("*.py")) if not path.name.endswith(GENERATED))
    return {module.name: module for module in map(_parsed, found)}


def records_by_position(module: Module, least_fields: int) -> Iterator[tuple[ast.Call, list[str]]]:
    """Each call that builds a record of so many fields with positional arguments, and the names of the record's fields."""
    for call, full_name in _calls(module):
        fields = _fields(full_name)
        if call.args and len(fields) >= least_fields:
            yield call, fields


def _calls(module: Module) -> Iterator[tuple[ast.Call, str]]:
    """All calls, each with the full name of what is called; that of the class, for `cls` in one of its methods."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield node, _full_name(module, node.func)
    for name, declared in module.classes.items():
        for node in ast.walk(declared):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "cls":
                yield node, f"{module.name}.{name}"


def _parsed(path: Path) -> Module:
    root = next(root for root in ROOTS if path.is_relative_to(root))
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    module = Module(path=path, name=name, tree=ast.parse(path.read_text()))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            module.classes[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            module.imported |= {(alias.asname or alias.name): f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            module.imported |= {(alias.asname or alias.name): alias.name for alias in node.names}
    return module


def _full_name(module: Module, expression: ast.expr) -> str:
    """What an expression names: of a class, its module's name and its own. Empty for anything but a name."""
    if isinstance(expression, ast.Subscript):
        return _full_name(module, expression.value)
    if isinstance(expression, ast.Attribute):
        return f"{_full_name(module, expression.value)}.{expression.attr}"
    if isinstance(expression, ast.Name):
        local = f"{module.name}.{expression.id}" if expression.id in module.classes else ""
        return local or module.imported.get(expression.id, "")
    return ""


@cache
def _fields(full_name: str) -> list[str]:
    """The fields of a record that can be given by position; none if it is no dataclass and no named tuple of ours."""
    name, _, class_name = full_name.rpartition(".")
    module = modules().get(name)
    if module is None or class_name not in module.classes:
        again = module.imported.get(class_name, "") if module else ""
        return _fields(again) if again else []
    declared = module.classes[class_name]
    if any(isinstance(statement, ast.FunctionDef) and statement.name == "__init__" for statement in declared.body):
        return []
    inherited = [name for base in declared.bases for name in _fields(_full_name(module, base))]
    marks = [ast.unparse(mark) for mark in (*declared.decorator_list, *declared.bases)]
    if not inherited and not any("dataclass" in mark or "NamedTuple" in mark for mark in marks):
        return []
    own = [statement for statement in declared.body if isinstance(statement, ast.AnnAssign)]
    return inherited + [ast.unparse(each.target) for each in own if "ClassVar" not in ast.unparse(each.annotation)]
