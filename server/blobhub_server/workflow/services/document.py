"""The two forms of a definition: the JSON document that is stored, and the typed message."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from blobhub.v1 import definition_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from blobhub_server.blobtypes import json_field, json_text
from blobhub_server.errors import InvalidValue, Violation
from blobhub_server.workflow.definitions.json_document import load
from blobhub_server.workflow.definitions.reader import (
    MAX_COMPONENTS,
    MAX_CONNECTIONS,
    MAX_PORTS,
    NANOSECONDS,
    fields_of,
    parse_duration,
)
from blobhub_server.workflow.errors import InvalidDefinitionContent


def to_document(definition: pb.WorkflowDefinition) -> str:
    """The JSON document that stands for a typed definition. Raises InvalidDefinitionContent when there is none.

    It may still be no definition: that is for the reader of documents to say.
    """
    _require_bounds(definition)
    writer = _Writer()
    text = _text(writer.fields(definition))
    size = len(text.encode())
    if size > json_text.MAX_BYTES:
        writer.violations.append(
            Violation("", f"must be at most {json_text.MAX_BYTES} bytes as a JSON document, not {size}")
        )
    if writer.violations:
        raise InvalidDefinitionContent(writer.violations)
    return text


def _require_bounds(definition: pb.WorkflowDefinition) -> None:
    """Raise InvalidDefinitionContent when a message has more parts than a definition may: empty ones take two bytes each."""
    counts = {
        "components": (len(definition.components), MAX_COMPONENTS, "items"),
        "connections": (len(definition.connections), MAX_CONNECTIONS, "items"),
    }
    if counts["components"][0] <= MAX_COMPONENTS:
        ports = sum(len(component.ports) for component in definition.components)
        counts["components"] = (ports, MAX_PORTS, "ports in all")
    violations = [
        Violation(path, f"must have at most {most} {what}, not {count}")
        for path, (count, most, what) in counts.items()
        if count > most
    ]
    if violations:
        raise InvalidDefinitionContent(violations)


class _Writer:
    """Makes the content of a document of messages, and notes the values that are none."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def fields(self, message: Message, path: str = "") -> dict[str, Any]:
        """What is set in a message, by the names of the format."""
        made: dict[str, Any] = {}
        for field, value in message.ListFields():
            place = f"{path}.{field.name}" if path else field.name
            if field.message_type is None:
                made[field.name] = _scalar(value)
            elif isinstance(message, pb.WorkflowPort):
                continue
            elif isinstance(value, Duration):
                made[field.name] = _duration_text(value)
            elif isinstance(value, Message):
                made[field.name] = self.fields(value, place)
            else:
                made[field.name] = [self.fields(item, f"{place}[{number}]") for number, item in enumerate(value)]
        if isinstance(message, pb.WorkflowPort):
            made.pop("value_json", None)
            if message.WhichOneof("form"):
                made["value"] = self._value(message, path)
        return made

    def _value(self, port: pb.WorkflowPort, path: str) -> Any:
        try:
            return json_field.read(port, "value", path=f"{path}.value")[0]
        except InvalidValue as error:
            self.violations += error.violations
            return None


def _scalar(value: Any) -> Any:
    """A text, a number or a list of texts. A number that JSON does not have becomes a text, which the reader refuses."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float) else list(value)


def _duration_text(duration: Duration) -> str:
    try:
        return duration.ToJsonString()
    except ValueError:
        return f"{duration.seconds} s and {duration.nanos} ns, which is no duration"


def _text(fields: dict[str, Any]) -> str:
    """A document as text, for people to read unless only its short form is within the bounds of a document."""
    text = json.dumps(fields, ensure_ascii=False, indent=2)
    if len(text.encode()) > json_text.MAX_BYTES:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return text


def to_message(document: str) -> pb.WorkflowDefinition:
    """The typed definition that a document stands for, in which the reader finds nothing wrong.

    Keys that the format does not know are left out.
    """
    content, _ = load(document)
    fields = fields_of("definition", content)
    components = [fields_of("component", item) for item in fields.get("components", ())]
    made = pb.WorkflowDefinition(
        type=fields["type"],
        version=fields.get("version", ""),
        components=[_component(item) for item in components],
        connections=[pb.WorkflowConnection(**fields_of("connection", item)) for item in fields.get("connections", ())],
    )
    allowance = json_field.ItemAllowance()
    for i, j, value in _values(components):
        json_field.fill(made.components[i].ports[j], "value", value, allowance=allowance)
    return made


def _component(fields: dict[str, Any]) -> pb.WorkflowComponent:
    made = pb.WorkflowComponent(
        **{name: fields[name] for name in ("id", "category", "type", "name", "parent_id") if name in fields}
    )
    if "position" in fields:
        made.position.SetInParent()
        for name, value in fields_of("position", fields["position"]).items():
            setattr(made.position, name, value)
    for port in fields.get("ports", ()):
        named = fields_of("port", port)
        made.ports.add(category=named["category"], route=named["route"])
    if "policy" in fields:
        _fill_policy(made.policy, fields_of("policy", fields["policy"]))
    return made


def _fill_policy(policy: pb.WorkflowPolicy, fields: dict[str, Any]) -> None:
    policy.SetInParent()
    if "timeout" in fields:
        policy.timeout.CopyFrom(_duration(fields["timeout"]))
    if "retry" not in fields:
        return
    policy.retry.SetInParent()
    for name, value in fields_of("retry", fields["retry"]).items():
        match name:
            case "initial_interval" | "maximum_interval":
                getattr(policy.retry, name).CopyFrom(_duration(value))
            case "non_retryable_reasons" | "retryable_reasons":
                getattr(policy.retry, name).extend(value)
            case "maximum_attempts":
                policy.retry.maximum_attempts = int(value)
            case _:
                setattr(policy.retry, name, value)


def _duration(text: str) -> Duration:
    duration = parse_duration(text)
    assert duration is not None, "read before"
    seconds, nanos = divmod(duration, NANOSECONDS)
    return Duration(seconds=seconds, nanos=nanos)


def _values(components: list[dict[str, Any]]) -> Iterator[tuple[int, int, Any]]:
    """The values of ports: (place of the component, place of the port, value) for each."""
    for i, component in enumerate(components):
        for j, port in enumerate(component.get("ports", ())):
            if "value" in port:
                yield i, j, port["value"]
