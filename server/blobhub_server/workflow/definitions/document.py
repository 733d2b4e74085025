"""Workflow definitions: the JSON document, read into values.

The format is that of the hosted platform (`type: workflow_definition`, `version: 1.0.1`). Keys that it does not know are
passed over here; the stored document keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue

MAX_COMPONENTS = 2_000
MAX_CONNECTIONS = 10_000
MAX_REASONS = 100

FLOW_INPUT = "flow_input"
FLOW_OUTPUT = "flow_output"
DATA_INPUT = "data_input"
DATA_OUTPUT = "data_output"
CATEGORIES = (FLOW_INPUT, FLOW_OUTPUT, DATA_INPUT, DATA_OUTPUT)


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


class Severity(StrEnum):
    """How bad a problem is; the names are those of `DefinitionProblemSeverity` in definition.proto."""

    ERROR = "ERROR"
    WARNING = "WARNING"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what kind, at which component (or ""), where in the document, in words.

    `line` and `column`, from 1, are places in a script or an expression; 0 when it is not about one.
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

    Intervals are in seconds. A failure whose reason is one of `non_retryable_reasons` is not tried again.
    """

    maximum_attempts: int = 1
    initial_interval: float = 1.0
    backoff_coefficient: float = 2.0
    maximum_interval: float = 60.0
    non_retryable_reasons: tuple[str, ...] = ()

    def wait(self, attempt: int) -> float:
        """Seconds to wait after that attempt, counted from 1, has failed."""
        return min(self.maximum_interval, self.initial_interval * self.backoff_coefficient ** min(attempt - 1, 64))


@dataclass(frozen=True, slots=True)
class Policy:
    """How a component is tried: seconds that one attempt may take (None: any), and when it is tried again."""

    timeout: float | None = None
    retry: Retry = field(default_factory=Retry)


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a workflow."""

    id: str
    category: str
    type: str
    name: str
    ports: tuple[Port, ...] = ()
    policy: Policy = field(default_factory=Policy)


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


def parse(document: bytes) -> Definition:
    """Read a JSON document. Raises InvalidDefinition with everything that is wrong with its shape."""
    try:
        content = json_text.load(document.decode())
    except (ValueError, RecursionError):
        raise InvalidDefinition([_invalid("", "is not a JSON document")]) from None
    reader = _Reader()
    definition = reader.definition(content)
    if reader.problems:
        raise InvalidDefinition(reader.problems)
    return definition


def _invalid(path: str, message: str) -> Problem:
    return Problem(type=ProblemType.INVALID_DOCUMENT, component_id="", path=path, message=message)


_CAMEL_CASE = {
    "maximumAttempts": "maximum_attempts",
    "initialInterval": "initial_interval",
    "backoffCoefficient": "backoff_coefficient",
    "maximumInterval": "maximum_interval",
    "nonRetryableReasons": "non_retryable_reasons",
}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


class _Reader:
    """Reads values, and notes what does not fit instead of stopping at it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._value_bytes = 0

    def definition(self, content: Any) -> Definition:
        content = self._object(content, "")
        if content.get("type") != "workflow_definition":
            self._note("type", "must be `workflow_definition`")
        definition = Definition(
            type="workflow_definition",
            version=self._text(content, "version", ""),
            components=tuple(self._items(content, "components", MAX_COMPONENTS, self._component)),
            connections=tuple(self._items(content, "connections", MAX_CONNECTIONS, self._connection)),
        )
        # Numbers may be spelled shorter in the document than they are told: 1e15 has 19 characters as 1000000000000000.0.
        if self._value_bytes > json_text.MAX_BYTES:
            bound = f"at most {json_text.MAX_BYTES} bytes as JSON in all, with each number in full, not {self._value_bytes}"
            self._note("components", f"must have values of {bound}")
        return definition

    def _component(self, content: Any, path: str) -> Component:
        content = self._object(content, path)
        return Component(
            id=self._text(content, "id", path, required=True),
            category=self._text(content, "category", path),
            type=self._text(content, "type", path, required=True),
            name=self._text(content, "name", path),
            ports=tuple(self._items(content, "ports", 256, self._port, path)),
            policy=self._policy(content.get("policy"), f"{path}.policy"),
        )

    def _port(self, content: Any, path: str) -> Port:
        content = self._object(content, path)
        category = self._text(content, "category", path, required=True)
        if category and category not in CATEGORIES:
            self._note(f"{path}.category", f"must be one of {', '.join(CATEGORIES)}")
        route = self._text(content, "route", path, required=True)
        if "value" in content:
            self._bound(content["value"], f"{path}.value")
        return Port(category=category, route=route, value=content.get("value"), has_value="value" in content)

    def _bound(self, value: Any, path: str) -> None:
        try:
            self._value_bytes += len(json_text.encode(path, value).encode())
        except InvalidValue as error:
            self._note(path, error.violations[0].message)

    def _connection(self, content: Any, path: str) -> Connection:
        content = self._object(content, path)
        names = ("id", "source_id", "target_id", "source_port", "target_port")
        texts = {name: self._text(content, name, path, required=True) for name in names}
        return Connection(**texts, route=self._text(content, "route", path))

    def _policy(self, content: Any, path: str) -> Policy:
        if content is None:
            return Policy()
        content = self._object(content, path)
        timeout = self._seconds(content, "timeout", path, None)
        given = content.get("retry")
        if given is None:
            return Policy(timeout)
        return Policy(timeout, self._retry(self._object(given, f"{path}.retry"), f"{path}.retry"))

    def _retry(self, content: dict[str, Any], path: str) -> Retry:
        # protobuf's JSON has a name for each field in either case, and a reader takes both.
        content = {_CAMEL_CASE.get(name, name): value for name, value in content.items()}
        attempts = self._number(content, "maximum_attempts", path, 1)
        if attempts != int(attempts):
            self._note(f"{path}.maximum_attempts", "must be a whole number")
        return Retry(
            maximum_attempts=int(attempts),
            initial_interval=self._seconds(content, "initial_interval", path, 1.0) or 0.0,
            backoff_coefficient=self._number(content, "backoff_coefficient", path, 2.0),
            maximum_interval=self._seconds(content, "maximum_interval", path, 60.0) or 0.0,
            non_retryable_reasons=tuple(self._items(content, "non_retryable_reasons", MAX_REASONS, self._reason, path)),
        )

    def _reason(self, content: Any, path: str) -> str:
        if isinstance(content, str) and 0 < len(content) <= 64:
            return content
        self._note(path, "must be a text of 1 to 64 characters")
        return ""

    def _items(
        self, content: dict[str, Any], name: str, most: int, read: Callable[[Any, str], Any], path: str = ""
    ) -> list[Any]:
        items = content.get(name, [])
        place = f"{path}.{name}" if path else name
        if not isinstance(items, list):
            self._note(place, "must be a list")
            return []
        if len(items) > most:
            self._note(place, f"must have at most {most} items")
            return []
        return [read(item, f"{place}[{i}]") for i, item in enumerate(items)]

    def _object(self, content: Any, path: str) -> dict[str, Any]:
        if isinstance(content, dict):
            return content
        self._note(path, "must be an object")
        return {}

    def _text(self, content: dict[str, Any], name: str, path: str, *, required: bool = False) -> str:
        place = f"{path}.{name}" if path else name
        value = content.get(name)
        if value is None:
            value = ""
        if not isinstance(value, str) or len(value) > 256:
            self._note(place, "must be a text of at most 256 characters")
            return ""
        if required and not value:
            self._note(place, "is missing")
        return str(value)

    def _seconds(self, content: dict[str, Any], name: str, path: str, default: float | None) -> float | None:
        value = content.get(name)
        if value is None:
            return default
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self._note(f"{path}.{name}", "must be a duration such as `1.5s`")
            return default
        return float(match[1])

    def _number(self, content: dict[str, Any], name: str, path: str, default: float) -> float:
        value = content.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            self._note(f"{path}.{name}", "must be a number")
            return default
        return float(value)

    def _note(self, path: str, message: str) -> None:
        if len(self.problems) < 200:
            self.problems.append(_invalid(path, message))
