"""Workflow definitions as values, and what may be wrong with them.

The format is that of the hosted platform (`type: workflow_definition`, `version: 1.0.1`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

FLOW_INPUT = "flow_input"
FLOW_OUTPUT = "flow_output"
DATA_INPUT = "data_input"
DATA_OUTPUT = "data_output"
CATEGORIES = (FLOW_INPUT, FLOW_OUTPUT, DATA_INPUT, DATA_OUTPUT)
VERSION = "1.0.1"
"""The version of the format that is read here. A document of another is read as one of this."""


class ProblemType(StrEnum):
    """Kinds of problem; the names are those of `DefinitionProblemType` in definition.proto."""

    INVALID_DOCUMENT = "INVALID_DOCUMENT"
    UNKNOWN_COMPONENT_TYPE = "UNKNOWN_COMPONENT_TYPE"
    DUPLICATE_ID = "DUPLICATE_ID"
    MISSING_PORT = "MISSING_PORT"
    DANGLING_CONNECTION = "DANGLING_CONNECTION"
    UNKNOWN_PORT = "UNKNOWN_PORT"
    UNREACHABLE_COMPONENT = "UNREACHABLE_COMPONENT"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    NO_START = "NO_START"
    SEVERAL_STARTS = "SEVERAL_STARTS"
    INVALID_EXPRESSION = "INVALID_EXPRESSION"
    INVALID_POLICY = "INVALID_POLICY"
    UNKNOWN_NAME = "UNKNOWN_NAME"
    UNSOUND_JOIN = "UNSOUND_JOIN"
    INVALID_SCRIPT = "INVALID_SCRIPT"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    POLICY_WITHOUT_EFFECT = "POLICY_WITHOUT_EFFECT"
    ROUTE_LEADS_NOWHERE = "ROUTE_LEADS_NOWHERE"
    UNSET_OUTPUT = "UNSET_OUTPUT"
    SEVERAL_SOURCES = "SEVERAL_SOURCES"
    UNUSED_VALUE = "UNUSED_VALUE"
    CATEGORY_MISMATCH = "CATEGORY_MISMATCH"
    NOT_IN_SANDBOX = "NOT_IN_SANDBOX"
    UNKNOWN_VERSION = "UNKNOWN_VERSION"
    REPEATED_CONNECTION = "REPEATED_CONNECTION"
    NEVER_TAKEN = "NEVER_TAKEN"
    INVALID_SCOPE = "INVALID_SCOPE"
    REPEATED_PORT = "REPEATED_PORT"


class Severity(StrEnum):
    """How bad a problem is; the names are those of `DefinitionProblemSeverity` in definition.proto."""

    ERROR = "ERROR"
    WARNING = "WARNING"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what kind, at which component (or ""), where in the document, in words.

    `line` and `column`, from 1, are places in a script, an expression, or the document itself where `path` is ""; 0 when it
    is about none of them.
    """

    type: ProblemType
    component_id: str
    path: str
    message: str
    severity: Severity = Severity.ERROR
    line: int = 0
    column: int = 0


class InvalidDefinition(Exception):
    """The document does not have the shape of a definition."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Port:
    """A port on a component. `value` means something only with `has_value`: null is a value."""

    category: str
    route: str
    value: Any = None
    has_value: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """`maximum_attempts` in all; the n-th wait is `initial_interval` × `backoff_coefficient`ⁿ⁻¹, at most `maximum_interval`.

    Intervals are in seconds. An attempt that a server went down under is none of them. A failure whose reason is one of
    `non_retryable_reasons`, or is none of `retryable_reasons` where there are some, is not tried again.
    """

    maximum_attempts: int = 1
    initial_interval: float = 1.0
    backoff_coefficient: float = 2.0
    maximum_interval: float = 60.0
    non_retryable_reasons: tuple[str, ...] = ()
    retryable_reasons: tuple[str, ...] = ()

    def takes(self, reason: str) -> bool:
        """Whether a failure with that reason is tried again, as far as its reason goes."""
        return reason not in self.non_retryable_reasons and (not self.retryable_reasons or reason in self.retryable_reasons)

    def wait(self, attempt: int, asked: float = 0.0) -> float:
        """Seconds to wait after that attempt, counted from 1, has failed; `asked` or more if that is not too long."""
        backoff = self.initial_interval * self.backoff_coefficient ** min(attempt - 1, 64)
        return min(self.maximum_interval, max(asked, backoff))


@dataclass(frozen=True, slots=True)
class Policy:
    """How a component is tried: seconds that one attempt may take (None: any), and when it is tried again."""

    timeout: float | None = None
    retry: Retry = field(default_factory=Retry)


NO_POLICY = Policy()
"""What components have that say nothing of it; one object for the thousands of them."""


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a workflow."""

    id: str
    category: str
    type: str
    name: str
    ports: tuple[Port, ...] = ()
    policy: Policy = NO_POLICY
    parent_id: str = ""
    """The scope that it is inside; "" for none."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A path for control (`source_port` is `flow_output`) or for data."""

    id: str
    source_id: str
    target_id: str
    source_port: str
    target_port: str
    route: str

    @property
    def control(self) -> bool:
        """True for a path of control."""
        return self.source_port == FLOW_OUTPUT

    @property
    def source_route(self) -> str:
        """The data output it takes from: named by the port, or by the route when the port says only its category."""
        return self.route if self.source_port == DATA_OUTPUT else self.source_port

    @property
    def target_route(self) -> str:
        """The data input it gives to, named likewise."""
        return self.route if self.target_port == DATA_INPUT else self.target_port


@dataclass(frozen=True, slots=True)
class Definition:
    """A blueprint: components, and the connections between them."""

    type: str
    version: str
    components: tuple[Component, ...]
    connections: tuple[Connection, ...]
    warnings: tuple[Problem, ...] = ()
    """What the reader warns of."""
