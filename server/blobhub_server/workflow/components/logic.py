"""Components that compute."""

from __future__ import annotations

from blobhub_server.workflow.code.contract import ScriptError
from blobhub_server.workflow.components.cel import compile_expression, evaluate, variables
from blobhub_server.workflow.components.contract import (
    ComponentContext,
    ComponentError,
    EffectComponent,
    Inputs,
    Outcome,
    PortSpec,
    PureComponent,
)
from blobhub_server.workflow.values import unwrap

_IN = PortSpec(category="flow_input", route="in", description="Control enters here.")
_SUCCESS = PortSpec(category="flow_output", route="success", description="Control leaves here.")
_FAILURE = PortSpec(
    category="flow_output", route="failure", description="Control leaves here when it has failed, if this is connected."
)


class Expression(PureComponent):
    """Evaluates a CEL expression whose variables are all other data inputs by name; the value is the output `result`.
    Fails when the expression cannot be evaluated.
    """

    type = "logic.expression"
    title = "Expression"
    ports = (
        _IN,
        _SUCCESS,
        _FAILURE,
        PortSpec(
            category="data_input", route="expression", description="A CEL expression.", value_type="text", required=True
        ),
        PortSpec(category="data_output", route="result", description="Its value."),
    )
    routes = ("success", "failure")
    open_ports = True

    def run(self, inputs: Inputs) -> Outcome:
        """Evaluate."""
        source = unwrap(inputs["expression"])
        return Outcome(route="success", outputs={"result": evaluate(source, variables(inputs, without=("expression",)))})

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """An expression that is set must parse."""
        source = unwrap(settings.get("expression"))
        message = compile_expression(source) if isinstance(source, str) else None
        return [("expression", message)] if message else []


class Code(EffectComponent):
    """Runs a Python script in a sandbox, without files, network or processes, within limits of time and memory. The
    script reads `data_inputs`, writes with `set_data_output`, and chooses its route with `set_result`, else `success`.
    Fails, with the line, when the script raises or goes beyond its limits.
    """

    type = "logic.code"
    title = "Code"
    ports = (
        _IN,
        _SUCCESS,
        _FAILURE,
        PortSpec(category="data_input", route="language", description="`python`.", value_type="choice"),
        PortSpec(
            category="data_input",
            route="code",
            description="The script: text, or a message whose text parts are joined.",
            required=True,
        ),
    )
    routes = ("success", "failure")
    open_ports = True
    open_routes = True

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        """Run the script."""
        given = {name: value for name, value in inputs.items() if name not in ("language", "code")}
        try:
            result = await context.services.scripts.run(unwrap(inputs["code"]), given, context.emit_output)
        except ScriptError as error:
            raise ComponentError(error.message, reason=error.reason, line=error.line) from None
        return Outcome(route=result.route, outputs=result.outputs, terminal=result.terminal)

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """The language must be one there is, and the script a text."""
        found = []
        if unwrap(settings.get("language", "python")) != "python":
            found.append(("language", "must be `python`"))
        if "code" in settings and not isinstance(unwrap(settings["code"]), str):
            found.append(("code", "must be a text or a message"))
        return found
