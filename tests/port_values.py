"""Small definitions whose ports have expressions and templates."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import flows


def expression(text: str) -> dict[str, str]:
    return {"type": "expression", "expression": text}


def template(text: str) -> dict[str, str]:
    return {"type": "template", "template": text}


def variable(alias: str, value: Any = None) -> dict[str, Any]:
    return flows.value(f"the-{alias}", alias, persistence="execution", value=value)


def shared(alias: str, value: Any = None) -> dict[str, Any]:
    """A value of the session."""
    return flows.value(f"shared-{alias}", alias, persistence="session", value=value)


def ending(value: Any, *others: dict[str, Any], steps: Any = (), connections: Any = ()) -> str:
    """Start, some steps in a row, and an end with a value; others beside them."""
    names = ["start", *(step["id"] for step in steps), "end"]
    routes = ["next", *("success" for _ in steps)]
    components = [
        flows.component("start", "flow.start"),
        *others,
        *steps,
        flows.component("end", "flow.end", value=value),
    ]
    row = [flows.control(*pair, route) for pair, route in zip(pairwise(names), routes, strict=True)]
    return flows.document(components, [*row, *connections])


def giving(id_: str, text: str, **inputs: Any) -> dict[str, Any]:
    """An expression as a step."""
    return flows.component(id_, "logic.expression", expression=text, **inputs)
