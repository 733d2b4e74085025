"""Components that hold data."""

from __future__ import annotations

import re
from typing import Any

from blobhub_server.workflow.components.contract import Component, ComponentError, ComponentKind, Inputs, PortSpec
from blobhub_server.workflow.components.operations import OPERATIONS, SET, initial, operate
from blobhub_server.workflow.values import unwrap

PERSISTENCES = ("definition", "execution", "session")


def persistence_of(settings: Inputs) -> Any:
    """The persistence of a `data.value`, as the values set on it say; it may be none that there is."""
    return unwrap(settings.get("persistence", PERSISTENCES[0]))


MAX_ALIAS = 256
SESSION_ALIAS = re.compile(r"(?!(?:.*/)?\.{1,2}(?:/|$))[A-Za-z0-9._@-]+(?:/[A-Za-z0-9._@-]+)*", re.ASCII)
"""What PutSessionObject takes as an alias (session_object.proto): what is written under another could not be read."""


class Value(Component):
    """Holds a value. Persistence `definition`: a constant. `execution`: lives as long as the execution, and may be given
    as input data under the alias. `session`: the session object of that alias, read when a component that is connected
    to it gets control, and written with the step that gives it a value. Many executions may use it at once: what is
    written is never made of a value that another has changed meanwhile, except by a step with effects outside. Such a
    step is not repeated, so it names an `operation`, which is applied to what is there.
    """

    type = "data.value"
    title = "Value"
    kind = ComponentKind.DATA
    ports = (
        PortSpec(
            category="data_input",
            route="alias",
            description="The name under which the value is known outside.",
            value_type="text",
        ),
        PortSpec(
            category="data_input",
            route="persistence",
            description="`definition`, `execution` or `session`.",
            value_type="choice",
        ),
        PortSpec(
            category="data_input",
            route="operation",
            description=(
                "What writing does: `set` (the default) replaces the value, `add` adds a number to it, `append` adds an "
                "item to a list, `merge` puts the keys of an object into it. Where there is no value yet, it is the one set "
                "here, else 0, an empty list or an empty object. What is there, or is written, of another type fails the "
                "step, with `OPERATION_TYPE`."
            ),
            value_type="choice",
        ),
        PortSpec(category="data_input", route="value", description="What is connected here is written."),
        PortSpec(category="data_output", route="value", description="The value."),
    )

    constants = ("alias", "persistence", "operation")

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """The persistence and the operation must be ones there are, and what is known outside needs a name."""
        persistence = persistence_of(settings)
        if persistence not in PERSISTENCES:
            return [("persistence", "must be `definition`, `execution` or `session`")]
        found = _problems_of_alias(unwrap(settings.get("alias", "")), persistence)
        return found + _problems_of_operation(settings, constant=persistence == "definition")


def _problems_of_alias(alias: Any, persistence: str) -> list[tuple[str, str]]:
    if persistence == "definition" or not isinstance(alias, str):
        return []
    if not 0 < len(alias) <= MAX_ALIAS:
        return [("alias", f"must be 1 to {MAX_ALIAS} characters for persistence `{persistence}`")]
    if persistence == "session" and not SESSION_ALIAS.fullmatch(alias):
        form = "segments of letters, digits, `.`, `_`, `@` and `-` joined by `/`, none of them `.` or `..`"
        return [("alias", f"must be {form} for persistence `session`")]
    return []


def _problems_of_operation(settings: Inputs, *, constant: bool) -> list[tuple[str, str]]:
    operation = unwrap(settings.get("operation", SET))
    if operation not in OPERATIONS:
        return [("operation", f"must be {', '.join(f'`{name}`' for name in OPERATIONS[:-1])} or `{OPERATIONS[-1]}`")]
    if "operation" in settings and constant:
        return [("operation", "has no effect on a value of persistence `definition`, which is a constant")]
    try:
        operate(operation, settings.get("value", initial(operation)), initial(operation))
    except ComponentError as error:
        return [("value", f"cannot be what the operation is applied to: {error.message}")]
    return []
