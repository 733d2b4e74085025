"""Reads the JSON document of a workflow definition.

There is one reader: what it finds is the verdict of CheckDefinition, PutDefinition and CommitRevision alike. Keys that the
format does not know are warned of and passed over; the stored document keeps them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue
from blobhub_server.workflow.definitions.document import (
    CATEGORIES,
    NO_POLICY,
    Component,
    Connection,
    Definition,
    InvalidDefinition,
    Policy,
    Port,
    Problem,
    ProblemType,
    Retry,
    Severity,
)
from blobhub_server.workflow.definitions.json_document import in_path, load, quoted

MAX_COMPONENTS = 2_000
MAX_CONNECTIONS = 10_000
MAX_PORTS = 10_000
MAX_COMPONENT_PORTS = 256
MAX_REASONS = 100
MAX_REASON_LENGTH = 64
MAX_TEXT = 256
MAX_POSITION = 1e15
DURATION = r"([0-9]{1,9})(?:\.([0-9]{1,9}))?s"
"""Seconds, as protobuf's JSON has them. It is a pattern for Python and for JSON Schema; so is CONTROL."""
CONTROL = r"\u0000-\u001f\u007f"
"""What no name has, as what logs and some databases do not take. Neither has one halves of characters."""
NANOSECONDS = 1_000_000_000
"""In a second."""
MAX_NOTES = 1_000
"""How many errors and how many warnings the reader tells."""

_DURATION = re.compile(DURATION)
_UNFIT = re.compile(rf"[{CONTROL}\ud800-\udfff]")

_SPELLINGS = {
    "definition": ("type", "version", "components", "connections"),
    "component": ("id", "category", "type", "name", "position", "ports", "policy", "parent_id"),
    "position": ("x", "y"),
    "port": ("category", "route", "value"),
    "policy": ("timeout", "retry"),
    "retry": (
        "maximum_attempts",
        "initial_interval",
        "backoff_coefficient",
        "maximum_interval",
        "non_retryable_reasons",
        "retryable_reasons",
    ),
    "connection": ("id", "source_id", "target_id", "source_port", "target_port", "route"),
}
"""The keys of each kind of object in a document."""


def _camel_case(name: str) -> str:
    return re.sub("_(.)", lambda match: match[1].upper(), name)


NAMES: Mapping[str, Mapping[str, str]] = {
    # protobuf's JSON has a name for each field in either case, and its readers take both.
    kind: {name: name for name in names} | {_camel_case(name): name for name in names}
    for kind, names in _SPELLINGS.items()
}
"""What each spelling of a key is a spelling of, by the kind of object that it is in."""


def fields_of(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """What an object of a document says, by the names of the format. Null says nothing, but as the value of a port."""
    names = NAMES[kind]
    return {names[key]: item for key, item in content.items() if key in names and (item is not None or key == "value")}


def parse(document: bytes) -> Definition:
    """Read a JSON document. Raises InvalidDefinition with everything that is wrong with its shape."""
    try:
        text = document.decode()
    except UnicodeDecodeError:
        raise InvalidDefinition([invalid("", "is not UTF-8")]) from None
    content, flaws = load(text)
    if flaws:
        raise InvalidDefinition([invalid(flaw.path, flaw.message, line=flaw.line, column=flaw.column) for flaw in flaws])
    reader = _Reader()
    definition = reader.definition(content)
    if reader.problems:
        raise InvalidDefinition(reader.problems + reader.warnings)
    return definition


def invalid(path: str, message: str, *, component_id: str = "", line: int = 0, column: int = 0) -> Problem:
    """The problem of a document that cannot be read as a definition."""
    return Problem(
        type=ProblemType.INVALID_DOCUMENT, component_id=component_id, path=path, message=message, line=line, column=column
    )


def parse_duration(text: str) -> int | None:
    """The nanoseconds of a duration such as `1.5s`; None for a text that is none."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * NANOSECONDS + int((match[2] or "").ljust(9, "0")) if match else None


class _Reader:
    """Reads values, and notes what does not fit instead of stopping at it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._component_id = ""
        self._ports = 0
        self._value_bytes = 0
        self._value_items = 0

    def definition(self, content: Any) -> Definition:
        fields = self._fields("definition", content, "")
        if isinstance(content, dict) and fields.get("type") != "workflow_definition":
            self._note("type", "must be `workflow_definition`")
        version = self._text(fields, "version", "")
        components = tuple(self._objects(fields, "components", MAX_COMPONENTS, self._component))
        self._component_id = ""
        connections = tuple(self._objects(fields, "connections", MAX_CONNECTIONS, self._connection))
        if self._ports > MAX_PORTS:
            self._note("components", f"must have at most {MAX_PORTS} ports in all, not {self._ports}")
        # Numbers may be spelled shorter in the document than they are told: 1e15 has 19 characters as 1000000000000000.0.
        if self._value_bytes > json_text.MAX_BYTES:
            bound = f"at most {json_text.MAX_BYTES} bytes as JSON in all, with each number in full, not {self._value_bytes}"
            self._note("components", f"must have values of {bound}")
        if self._value_items > json_text.MAX_VALUE_ITEMS:
            bound = f"at most {json_text.MAX_VALUE_ITEMS} items in lists and objects in all, not {self._value_items}"
            self._note("components", f"must have values of {bound}")
        return Definition(
            type="workflow_definition",
            version=version,
            components=components,
            connections=connections,
            warnings=tuple(self.warnings),
        )

    def _component(self, content: dict[str, Any], path: str) -> Component:
        self._component_id = ""
        fields = self._fields("component", content, path)
        id_ = self._component_id = self._text(fields, "id", path, required=True)
        category = self._text(fields, "category", path)
        type_ = self._text(fields, "type", path, required=True)
        name = self._text(fields, "name", path)
        self._position(fields, f"{path}.position")
        ports = tuple(self._objects(fields, "ports", MAX_COMPONENT_PORTS, self._port, path))
        policy = self._policy(fields, f"{path}.policy")
        parent_id = self._text(fields, "parent_id", path)
        return Component(id=id_, category=category, type=type_, name=name, ports=ports, policy=policy, parent_id=parent_id)

    def _position(self, fields: dict[str, Any], path: str) -> None:
        position = self._fields("position", fields.get("position", {}), path)
        for name in position:
            self._number(position, name, path, 0.0, MAX_POSITION)

    def _port(self, content: dict[str, Any], path: str) -> Port:
        fields = self._fields("port", content, path)
        self._ports += 1
        category = self._text(fields, "category", path, required=True)
        if category and category not in CATEGORIES:
            self._note(f"{path}.category", f"must be one of {', '.join(CATEGORIES)}")
        route = self._text(fields, "route", path, required=True)
        if "value" in fields:
            self._bound(fields["value"], f"{path}.value")
        return Port(category=category, route=route, value=fields.get("value"), has_value="value" in fields)

    def _bound(self, value: Any, path: str) -> None:
        try:
            text = json_text.encode(path, value)
            self._value_bytes += len(text.encode())
            self._value_items += json_text.measure(text)[0]
        except InvalidValue as error:
            self._note(path, error.violations[0].message)

    def _connection(self, content: dict[str, Any], path: str) -> Connection:
        fields = self._fields("connection", content, path)
        names = ("id", "source_id", "target_id", "source_port", "target_port")
        texts = {name: self._text(fields, name, path, required=True) for name in names}
        return Connection(**texts, route=self._text(fields, "route", path))

    def _policy(self, fields: dict[str, Any], path: str) -> Policy:
        if "policy" not in fields:
            return NO_POLICY
        policy = self._fields("policy", fields["policy"], path)
        timeout = self._seconds(policy, "timeout", path, None)
        return Policy(timeout, self._retry(policy["retry"], f"{path}.retry")) if "retry" in policy else Policy(timeout)

    def _retry(self, content: Any, path: str) -> Retry:
        fields = self._fields("retry", content, path)
        attempts = self._number(fields, "maximum_attempts", path, 1)
        if attempts != int(attempts):
            self._note(f"{path}.maximum_attempts", "must be a whole number")
        return Retry(
            maximum_attempts=int(attempts),
            initial_interval=self._seconds(fields, "initial_interval", path, 1.0) or 0.0,
            backoff_coefficient=self._number(fields, "backoff_coefficient", path, 2.0),
            maximum_interval=self._seconds(fields, "maximum_interval", path, 60.0) or 0.0,
            non_retryable_reasons=tuple(self._items(fields, "non_retryable_reasons", MAX_REASONS, self._reason, path)),
            retryable_reasons=tuple(self._items(fields, "retryable_reasons", MAX_REASONS, self._reason, path)),
        )

    def _reason(self, content: Any, path: str) -> str:
        if isinstance(content, str) and 0 < len(content) <= MAX_REASON_LENGTH and not _UNFIT.search(content):
            return content
        self._note(path, f"must be a text of 1 to {MAX_REASON_LENGTH} characters, none of them a control character")
        return ""

    def _items(
        self, fields: dict[str, Any], name: str, most: int, read: Callable[[Any, str], Any], path: str = ""
    ) -> list[Any]:
        items = fields.get(name, [])
        place = f"{path}.{name}" if path else name
        if not isinstance(items, list):
            self._note(place, "must be a list")
            return []
        if len(items) > most:
            self._note(place, f"must have at most {most} items, not {len(items)}")
            return []
        return [read(item, f"{place}[{i}]") for i, item in enumerate(items)]

    def _objects(
        self, fields: dict[str, Any], name: str, most: int, read: Callable[[dict[str, Any], str], Any], path: str = ""
    ) -> list[Any]:
        return [made for made in self._items(fields, name, most, partial(self._object, read), path) if made is not None]

    def _object(self, read: Callable[[dict[str, Any], str], Any], content: Any, path: str) -> Any:
        if isinstance(content, dict):
            return read(content, path)
        self._note(path, "must be an object")
        return None

    def _fields(self, kind: str, content: Any, path: str) -> dict[str, Any]:
        """What an object says. Keys that are not of the format are warned of, a key in both spellings is an error."""
        if not isinstance(content, dict):
            self._note(path, "must be an object")
            return {}
        names = NAMES[kind]
        seen: dict[str, str] = {}
        for key in content:
            name = names.get(key)
            if name is None:
                self._warn(key, kind, path)
            elif seen.setdefault(name, key) != key:
                self._note(f"{path}{in_path(key)}".removeprefix("."), f"is `{seen[name]}` in another spelling; say it once")
        return fields_of(kind, content)

    def _text(self, fields: dict[str, Any], name: str, path: str, *, required: bool = False) -> str:
        place = f"{path}.{name}" if path else name
        value: Any = fields.get(name, "")
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            self._note(place, f"must be a text of at most {MAX_TEXT} characters")
            return ""
        if _UNFIT.search(value):
            self._note(place, "must have neither control characters nor halves of surrogate pairs")
            return ""
        if required and not value:
            self._note(place, "is missing")
        return str(value)

    def _seconds(self, fields: dict[str, Any], name: str, path: str, default: float | None) -> float | None:
        value = fields.get(name)
        if value is None:
            return default
        duration = parse_duration(value) if isinstance(value, str) else None
        if duration is None:
            self._note(f"{path}.{name}", "must be a duration such as `1.5s`")
            return default
        return duration / NANOSECONDS

    def _number(self, fields: dict[str, Any], name: str, path: str, default: float, most: float = 1e9) -> float:
        value = fields.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < most:
            self._note(f"{path}.{name}", f"must be a number between -{most:g} and {most:g}")
            return default
        return float(value)

    def _note(self, path: str, message: str) -> None:
        if len(self.problems) < MAX_NOTES:
            self.problems.append(invalid(path, message, component_id=self._component_id))

    def _warn(self, key: str, kind: str, path: str) -> None:
        if len(self.warnings) >= MAX_NOTES:
            return
        close = difflib.get_close_matches(key, _SPELLINGS[kind], n=1) if len(key) <= MAX_TEXT else []
        meant = f"; did you mean `{close[0]}`?" if close else ""
        self.warnings.append(
            Problem(
                type=ProblemType.UNKNOWN_KEY,
                component_id=self._component_id,
                path=f"{path}{in_path(key)}".removeprefix("."),
                message=f"the format has no key {quoted(key)} here{meant}",
                severity=Severity.WARNING,
            )
        )
