"""How what fails is told: errors as the log and outputs have them, and routes that lead nowhere."""

from __future__ import annotations

from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue
from blobhub_server.workflow.components.awaits import Await, AwaitKind
from blobhub_server.workflow.components.contract import MAX_REASON, ComponentError
from blobhub_server.workflow.definitions.graph import END, Node

MAX_MESSAGE = 2_000
"""How many characters an error's message has at most in the log, whatever a component says."""
MAX_DETAILS_BYTES = 16 << 10
MAX_DETAILS_DEPTH = 16
"""How large the details of an error are at most as JSON, and how deep: an error is a value itself. More is left out."""
FAILED_BY_ROUTE = "it ended with the route `failure`"
"""The message of a component that chose the route and gave no error."""
_MAY_END = ("success", "next")
"""The routes that end their branch when no connection carries them."""


def is_lost(node: Node, route: str) -> bool:
    """Whether control is lost on a route: no connection carries it, and it may not end its branch.

    `failure` is not lost: nobody handles it, which fails the execution in its own words.
    """
    return route not in node.control and route not in _MAY_END and route != "failure" and node.type != END


def leads_nowhere(node: Node, route: str) -> ComponentError:
    """The error of a component that takes a route which no connection carries."""
    known = ", ".join(map(repr, node.control)) or "none"
    message = f"it took the route {route!r}, which no connection carries; its connected routes: {known}"
    return ComponentError(message, reason="ROUTE_LEADS_NOWHERE", retryable=False)


def not_done(awaits: Await) -> ComponentError:
    """The error of a step whose task no worker has done in time, or whose execution has not ended."""
    if awaits.kind is AwaitKind.CHILD:
        message = f"the execution {awaits.details['execution_id']} has not ended within {awaits.seconds:g} s"
        return ComponentError(message, reason="TIMEOUT")
    return ComponentError(f"no worker has done it within {awaits.seconds:g} s", reason="TIMEOUT")


def failure(
    reason: str, message: str, line: int = 0, *, component_id: str = "", attempt: int = 0, details: Any = None
) -> dict[str, Any]:
    """An error as the log and the output `error` have it: cut, so that whatever a component says, its event can be read."""
    return {
        "reason": reason[:MAX_REASON],
        "message": cut(message),
        "component_id": component_id,
        "line": line,
        "attempt": attempt,
        "details": None if details is None else bounded_details(details),
    }


def cut(message: str) -> str:
    """A message, cut where it is too long."""
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…"


def failure_of(component_id: str, attempt: int, error: ComponentError) -> dict[str, Any]:
    """The error of an attempt at a component."""
    return failure(
        error.reason,
        error.message,
        error.line or 0,
        component_id=component_id,
        attempt=attempt,
        details=error.details,
    )


def bounded_details(details: Any) -> Any:
    """Details as plain JSON; None where they are none, or too large."""
    try:
        text = json_text.encode("details", details)
    except InvalidValue:
        return None
    if len(text.encode()) > MAX_DETAILS_BYTES or json_text.is_deeper(text, MAX_DETAILS_DEPTH):
        return None
    return json_text.load(text)
