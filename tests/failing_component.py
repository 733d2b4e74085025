"""A component that fails at every attempt."""

from __future__ import annotations

from blobhub_server.workflow.components.contract import ComponentContext, EffectComponent, Inputs, Outcome, PortSpec


class Fails(EffectComponent):
    """Notes its attempts, and raises an error at each."""

    type = "test.fails"
    title = "Fails"
    ports = (PortSpec(category="flow_input", route="in", description="Control enters here."),)
    routes = ("success",)

    def __init__(self, error: Exception) -> None:
        self.attempts: list[int] = []
        self._error = error

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        self.attempts.append(context.attempt)
        raise self._error
