"""Examines the document of a definition: what is wrong with it, all at once. It waits for nothing: any process can do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blobhub_server.errors import Violation
from blobhub_server.workflow.code.contract import ScriptFlaw
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.check import check, scripts_of
from blobhub_server.workflow.definitions.document import Definition, InvalidDefinition, Problem, ProblemType, Severity
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.errors import InvalidDefinitionContent

_UNREADABLE = (ProblemType.INVALID_DOCUMENT, ProblemType.INVALID_EXPRESSION)
"""Problems with which a definition is refused, also in a draft. With others it can be stored, as work that goes on."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a definition."""

    problems: Sequence[Problem]
    violations: tuple[Violation, ...]
    """The errors among the problems, as errors of calls carry them."""

    @property
    def is_runnable(self) -> bool:
        """Whether no problem is an error."""
        return not self.violations

    def require_readable(self) -> None:
        """Raise InvalidDefinitionContent, with every error, unless it is a definition with sound expressions."""
        if any(problem.type in _UNREADABLE for problem in self.problems):
            raise InvalidDefinitionContent(self.violations)


def verdict_of(problems: Sequence[Problem]) -> Verdict:
    """The verdict that problems come to. Called in a thread: a short document can have twenty thousand."""
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    violations = tuple(Violation(problem.path or problem.component_id, _words(problem)) for problem in errors)
    return Verdict(problems=problems, violations=violations)


def _words(problem: Problem) -> str:
    place = f"line {problem.line}, column {problem.column}: " if problem.line else ""
    return f"{place}{problem.message}"


@dataclass(frozen=True, slots=True)
class Examination:
    """A document that was read: its definition, or why it is none; and the scripts that the sandbox has to look at."""

    definition: Definition | None
    problems: Sequence[Problem]
    scripts: Sequence[str]

    def check(self, registry: ComponentRegistry, flaws: Mapping[str, ScriptFlaw]) -> Sequence[Problem]:
        """All problems; `flaws` are those of the scripts."""
        return self.problems if self.definition is None else check(self.definition, registry, flaws)


def examine(document: bytes, registry: ComponentRegistry) -> Examination:
    """Read a document."""
    try:
        definition = parse(document)
    except InvalidDefinition as error:
        return Examination(definition=None, problems=error.problems, scripts=())
    return Examination(definition=definition, problems=(), scripts=scripts_of(definition, registry))
