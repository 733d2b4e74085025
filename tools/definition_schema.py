"""The JSON Schema of workflow definitions, made of the bounds and names that the server's reader has.

It says what a document must look like, for editors to complete and to underline. What it refuses CheckDefinition refuses;
what it takes may still be wrong, as a connection to a component that is not there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions import check, reader
from blobhub_server.workflow.definitions.document import CATEGORIES, DATA_INPUT, DATA_OUTPUT, FLOW_INPUT, FLOW_OUTPUT

PAGE = Path(__file__).resolve().parent.parent / "docs" / "definition.schema.json"
_NO_CONTROL = f"^[^{reader.CONTROL}]*$"
_DURATION = f"^{reader.DURATION}$"

Schema = dict[str, Any]


def page() -> str:
    """The schema as the text of a file."""
    made = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "BlobHub workflow definition",
        **_object(
            "definition",
            "The blueprint of a workflow: components and the connections between them.",
            {
                "type": {"const": "workflow_definition"},
                "version": _text("Version of the format; `1.0.1`."),
                "components": _list("component", reader.MAX_COMPONENTS),
                "connections": _list("connection", reader.MAX_CONNECTIONS),
            },
            required=("type",),
        ),
        "definitions": {
            "component": _component(),
            "port": _port(),
            "policy": _policy(),
            "retry": _retry(),
            "connection": _connection(),
        },
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _component() -> Schema:
    types = sorted(component.type for component in ComponentRegistry.load())
    coordinate = {
        "type": ["number", "null"],
        "exclusiveMinimum": -reader.MAX_POSITION,
        "exclusiveMaximum": reader.MAX_POSITION,
    }
    return _object(
        "component",
        "One part of a workflow.",
        {
            "id": _name("Unique within the definition."),
            "category": _text("Group of the type, such as `flow`; for display."),
            "type": _name("The component type; ListComponents has them.") | {"examples": types},
            "name": _text("What people call it."),
            "position": {
                "description": "Where an editor draws it.",
                "type": ["object", "null"],
                "properties": {"x": coordinate, "y": coordinate},
            },
            "ports": _list("port", reader.MAX_COMPONENT_PORTS),
            "policy": {"anyOf": [{"type": "null"}, {"$ref": "#/definitions/policy"}]},
            "parent_id": _text("The scope that it is inside, such as a `flow.try`."),
        },
        required=("id", "type"),
    )


def _port() -> Schema:
    return _object(
        "port",
        "A place where control or data enters or leaves a component.",
        {
            "category": {"enum": list(CATEGORIES)},
            "route": _name("Its name: of an outcome for `flow_output`, of a value for the data categories."),
            "value": {"description": "The value set on it: plain JSON, a value object, an expression or a template."},
        },
        required=("category", "route"),
    )


def _policy() -> Schema:
    return _object(
        "policy",
        "How a component is tried.",
        {
            "timeout": _duration("How long one attempt may take."),
            "retry": {"anyOf": [{"type": "null"}, {"$ref": "#/definitions/retry"}]},
        },
    )


def _retry() -> Schema:
    reason = {"type": "string", "minLength": 1, "maxLength": reader.MAX_REASON_LENGTH}
    return _object(
        "retry",
        "When a failed component is tried again.",
        {
            "maximum_attempts": {
                "description": "How many attempts in all.",
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": check.MAX_ATTEMPTS,
            },
            "initial_interval": _duration("The wait before the second attempt."),
            "backoff_coefficient": {
                "description": "What each wait is multiplied by.",
                "type": ["number", "null"],
                "minimum": 1,
                "maximum": check.MAX_COEFFICIENT,
            },
            "maximum_interval": _duration("The longest wait."),
            "non_retryable_reasons": {"type": ["array", "null"], "items": reason, "maxItems": reader.MAX_REASONS},
            "retryable_reasons": {"type": ["array", "null"], "items": reason, "maxItems": reader.MAX_REASONS},
        },
    )


def _connection() -> Schema:
    data = f"`{FLOW_OUTPUT}` for control, else a data output"
    into = f"`{FLOW_INPUT}` for control, else a data input"
    return _object(
        "connection",
        "A path for control or data.",
        {
            "id": _name("Unique within the definition."),
            "source_id": _name("The component that gives."),
            "target_id": _name("The component that receives."),
            "source_port": _name(f"{data}: its route, or `{DATA_OUTPUT}` where `route` names it."),
            "target_port": _name(f"{into}: its route, or `{DATA_INPUT}` where `route` names it."),
            "route": _text("For control: the outcome on which it fires, such as `success`."),
        },
        required=("id", "source_id", "target_id", "source_port", "target_port"),
    )


def _object(kind: str, description: str, properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    """An object whose keys may be spelled in either case."""
    spelled = {spelling: properties[name] for spelling, name in reader.NAMES[kind].items()}
    made: Schema = {"description": description, "type": "object", "properties": spelled}
    plain = [name for name in required if "_" not in name]
    if plain:
        made["required"] = plain
    either = [
        {"anyOf": [{"required": [spelling]} for spelling, of in reader.NAMES[kind].items() if of == name]}
        for name in required
        if "_" in name
    ]
    return made | ({"allOf": either} if either else {})


def _text(description: str) -> Schema:
    limits = {"maxLength": reader.MAX_TEXT, "pattern": _NO_CONTROL}
    return {"description": description, "type": ["string", "null"], **limits}


def _name(description: str) -> Schema:
    return _text(description) | {"type": "string", "minLength": 1}


def _list(kind: str, most: int) -> Schema:
    return {"type": ["array", "null"], "items": {"$ref": f"#/definitions/{kind}"}, "maxItems": most}


def _duration(description: str) -> Schema:
    return {"description": f"{description} Such as `1.5s`.", "type": ["string", "null"], "pattern": _DURATION}
