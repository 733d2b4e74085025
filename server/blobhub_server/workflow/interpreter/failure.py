"""How what fails is told: errors as the log has them, and routes that lead nowhere."""

from __future__ import annotations

from typing import Any

from blobhub_server.workflow.components.contract import ComponentError
from blobhub_server.workflow.definitions.graph import END, Node

MAX_REASON, MAX_MESSAGE = 64, 2_000
"""How many characters an error's reason and its message have at most in the log, whatever a component says."""
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


def failure(reason: str, message: str, line: int) -> dict[str, Any]:
    """An error as the log has it: cut, so that whatever a component says, its event can be read."""
    message = message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…"
    return {"reason": reason[:MAX_REASON], "message": message, "line": line}
