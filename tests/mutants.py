"""Mutants of the access module: one change each, put in place of the function it is made from.

The operators are few and made for decisions: a check taken out, a condition decided or turned round, an operand dropped, a
role or a permission replaced by another. Mutation libraries rewrite files and run a suite for each; here the suite is one
running server whose functions are replaced, and taking statements out, which is what is asked, is none of their operators.
"""

from __future__ import annotations
import __future__

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from blobhub_server.blobtypes.access import Caller
from blobhub_server.platform.admission import authentication, gate
from blobhub_server.platform.rules import access, api_key

ROLES = ("NONE", "READ", "WRITE", "ADMIN")

DECISIONS: tuple[tuple[Any, str], ...] = (
    (access, "require_caller"),
    (access, "held_role"),
    (access, "works_at"),
    (access, "require_role"),
    (access, "is_hidden"),
    (access, "hidden"),
    (access, "refusal_for"),
    (access, "require_public_creation"),
    (access, "require_settings_role"),
    (access, "require_key_role"),
    (access, "require_worker_queues"),
    (access, "require_lifetime"),
    (Caller, "anonymous"),
    (Caller, "identity"),
)
"""Every function of the access module; each is changed in every way."""

CHECKS: tuple[tuple[Any, str], ...] = (
    (gate.Admission, "identify"),
    (gate.Admission, "_locate"),
    (gate.Admission, "_resolve"),
    (gate.Admission, "_require"),
    (authentication.Authentication, "require_form"),
    (authentication.Authentication, "_key_caller"),
    (authentication, "_require_enabled"),
    (api_key, "matches"),
)
"""Where the decisions are asked for, and what they rest on; here checks are taken out."""


@dataclass(frozen=True)
class Mutant:
    """A changed function: whose it is, what was changed, and what it became."""

    owner: Any
    name: str
    change: str
    function: Any

    def __str__(self) -> str:
        return f"{getattr(self.owner, '__name__', self.owner)}.{self.name}: {self.change}"

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The server runs with the mutant for as long as this is entered."""
        before = inspect.getattr_static(self.owner, self.name)
        setattr(self.owner, self.name, self.function)
        try:
            yield
        finally:
            setattr(self.owner, self.name, before)


def mutants() -> Iterator[Mutant]:
    """All mutants."""
    for owner, name in DECISIONS:
        yield from _of(owner, name, _every_change)
    for owner, name in CHECKS:
        yield from _of(owner, name, _checks_out)


def _of(owner: Any, name: str, changes: Callable[[ast.AST], Iterator[tuple[str, ast.AST]]]) -> Iterator[Mutant]:
    original = inspect.getattr_static(owner, name)
    source = textwrap.dedent(inspect.getsource(original.fget if isinstance(original, property) else original))
    tree = ast.parse(source)
    module = inspect.getmodule(owner) if inspect.isclass(owner) else owner
    for place, node in enumerate(ast.walk(tree)):
        for change, _ in changes(node):
            mutated = copy.deepcopy(tree)
            target = next(other for number, other in enumerate(ast.walk(mutated)) if number == place)
            replacement = next(new for said, new in changes(target) if said == change)
            _replace(mutated, target, replacement)
            namespace = dict(vars(module))
            flags = __future__.annotations.compiler_flag
            exec(compile(ast.fix_missing_locations(mutated), f"<{name}>", "exec", flags), namespace)
            yield Mutant(
                owner=owner, name=name, change=f"line {getattr(node, 'lineno', 0)}: {change}", function=namespace[name]
            )


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if value is old:
                setattr(node, field, new)
            elif isinstance(value, list) and any(item is old for item in value):
                setattr(node, field, [new if item is old else item for item in value])


def _checks_out(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Statements that refuse, taken out."""
    if isinstance(node, ast.Raise):
        yield f"without `{ast.unparse(node)}`", ast.Pass()
    if isinstance(node, ast.Expr) and "require" in ast.unparse(node):
        yield f"without `{ast.unparse(node)}`", ast.Pass()
    if isinstance(node, ast.Return) and node.value is not None and "compare" in ast.unparse(node):
        yield f"`{ast.unparse(node)}` is True", ast.Return(ast.Constant(True))


def _every_change(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every way to change a decision at a node."""
    yield from _checks_out(node)
    said = ast.unparse(node) if isinstance(node, ast.expr | ast.If) else ""
    if isinstance(node, ast.If):
        for value in (True, False):
            changed = copy.copy(node)
            changed.test = ast.Constant(value)
            yield f"`if {ast.unparse(node.test)}` is always {value}", changed
    if isinstance(node, ast.BoolOp):
        other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield f"`{said}` with the other operator", ast.BoolOp(other, node.values)
        for operand in node.values:
            rest = [value for value in node.values if value is not operand]
            without = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
            yield f"`{said}` without `{ast.unparse(operand)}`", without
    if isinstance(node, ast.Compare):
        for operator in _OTHER.get(type(node.ops[0]), ()):
            yield f"`{said}` with {operator.__name__}", ast.Compare(node.left, [operator()], node.comparators)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"`{said}` without not", node.operand
    if isinstance(node, ast.IfExp):
        yield f"`{said}`: always the first", node.body
        yield f"`{said}`: always the second", node.orelse
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
        for argument in node.args:
            yield f"`{said}` is `{ast.unparse(argument)}`", argument
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in ROLES:
        for role in ROLES:
            if node.value.id == "Role" and role != node.attr:
                yield f"`{said}` is Role.{role}", ast.Attribute(node.value, role, node.ctx)
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        for item in node.elts:
            rest = [other for other in node.elts if other is not item]
            yield f"`{said}` without `{ast.unparse(item)}`", ast.Tuple(rest, node.ctx)


_OTHER: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
