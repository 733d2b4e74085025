"""Components that hold data."""

from __future__ import annotations

from blobhub_server.workflow.components.contract import Component, ComponentKind, Inputs, PortSpec
from blobhub_server.workflow.values import unwrap

PERSISTENCES = ("definition", "execution", "session")


class Value(Component):
    """Holds a value. Persistence `definition`: a constant. `execution`: lives as long as the execution, and may be given
    as input data under the alias. `session`: the session object of that alias, read when a component that is connected
    to it gets control, and written with the step that gives it a value.
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
        PortSpec(category="data_input", route="value", description="What is connected here is written."),
        PortSpec(category="data_output", route="value", description="The value."),
    )

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """The persistence must be one there is, and what is known outside needs a name."""
        persistence = unwrap(settings.get("persistence", "definition"))
        if persistence not in PERSISTENCES:
            return [("persistence", "must be `definition`, `execution` or `session`")]
        if persistence != "definition" and not unwrap(settings.get("alias")):
            return [("alias", f"is needed for persistence `{persistence}`")]
        return []
