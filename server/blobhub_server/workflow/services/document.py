"""The two forms of a definition: the JSON document that is stored, and the typed message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from blobhub.v1 import definition_pb2 as pb
from google.protobuf import json_format

from blobhub_server.blobtypes import json_field, json_text
from blobhub_server.errors import InvalidValue, Violation
from blobhub_server.workflow.errors import InvalidDefinitionContent


def to_document(definition: pb.WorkflowDefinition) -> str:
    """The JSON document that stands for a typed definition. Raises InvalidDefinitionContent when JSON cannot say it."""
    bare = pb.WorkflowDefinition()
    bare.CopyFrom(definition)
    try:
        values = list(_pop_values(bare))
        fields = json_format.MessageToDict(bare, preserving_proto_field_name=True)
        for i, j, value in values:
            fields["components"][i]["ports"][j]["value"] = value
        return _text(fields)
    except InvalidValue as error:
        raise InvalidDefinitionContent(error.violations) from None
    except (json_format.SerializeToJsonError, ValueError):
        message = "holds a number or a duration that JSON cannot say"
        raise InvalidDefinitionContent([Violation("content", message)]) from None


def _text(fields: dict[str, Any]) -> str:
    """A document as text, for people to read unless only its short form is within the bounds of a document."""
    text = json.dumps(fields, ensure_ascii=False, indent=2, allow_nan=False)
    if len(text.encode()) > json_text.MAX_BYTES:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    size = len(text.encode())
    if size > json_text.MAX_BYTES:
        raise InvalidValue("content", f"must be at most {json_text.MAX_BYTES} bytes as a JSON document, not {size}")
    return text


def to_message(document: str) -> pb.WorkflowDefinition:
    """The typed definition that a JSON document stands for; keys the format does not know are left out."""
    try:
        # `json_format` would make doubles of all numbers, so the values of ports are put in one by one.
        content = json_text.load(document)
        values = list(_take_values(content))
        made = json_format.ParseDict(content, pb.WorkflowDefinition(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, RecursionError):
        message = "does not fit the fields of a workflow definition"
        raise InvalidDefinitionContent([Violation("document", message)]) from None
    room = json_field.MAX_ITEMS
    for i, j, value in values:
        room -= json_field.fill(made.components[i].ports[j], "value", value, room=room)
    return made


def _pop_values(definition: pb.WorkflowDefinition) -> Iterator[tuple[int, int, Any]]:
    """Take the values out of a message's ports: (place of the component, place of the port, value) for each."""
    for i, component in enumerate(definition.components):
        for j, port in enumerate(component.ports):
            if port.WhichOneof("form"):
                value, _ = json_field.read(port, "value", path=f"content.components[{i}].ports[{j}].value")
                port.ClearField("value")
                port.ClearField("value_json")
                yield i, j, value


def _take_values(content: Any) -> Iterator[tuple[int, int, Any]]:
    """The same for a document, once its shape is known to be right. The key `value_json` is none of a document's."""
    for i, component in enumerate(content.get("components", ())):
        for j, port in enumerate(component.get("ports", ())):
            port.pop("value_json", None)
            port.pop("valueJson", None)
            if "value" in port:
                yield i, j, port.pop("value")
