"""Components that compute."""

from __future__ import annotations

from blobhub_server.workflow.code.calls import calls_of
from blobhub_server.workflow.code.contract import ScriptError
from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    ERROR,
    FAILURE,
    SUCCESS,
    ComponentContext,
    ComponentError,
    EffectComponent,
    ExpressionComponent,
    ExpressionContext,
    ExpressionSetting,
    Inputs,
    Outcome,
    PortSpec,
    RouteSetting,
    ScriptSetting,
)
from blobhub_server.workflow.components.expressions import Evaluation
from blobhub_server.workflow.values import unwrap


class Expression(ExpressionComponent):
    """Evaluates an expression, one line of Python whose names are all other data inputs, and data of the execution. The
    value is the output `result`. Fails when the expression has no value, or takes more work than an expression may.
    """

    type = "logic.expression"
    title = "Expression"
    ports = (
        CONTROL_IN,
        SUCCESS,
        FAILURE,
        PortSpec(
            category="data_input",
            route="expression",
            description="One line of Python, such as `price * 1.5`.",
            value_type="text",
            required=True,
        ),
        PortSpec(category="data_output", route="result", description="Its value."),
        ERROR,
    )
    routes = ("success", "failure")
    open_ports = True

    def run_in(self, inputs: Inputs, context: ExpressionContext | None) -> Outcome:
        """Evaluate."""
        evaluation = Evaluation(inputs, context, without=("expression",))
        value = evaluation.value(unwrap(inputs["expression"]))
        return Outcome(route="success", outputs={"result": value}, work=evaluation.work, bounded=True)

    def expressions(self, settings: Inputs) -> list[ExpressionSetting]:
        """The one that is set."""
        text = unwrap(settings.get("expression"))
        return [ExpressionSetting(input="expression", text=text)] if isinstance(text, str) else []

    def outputs_set(self, settings: Inputs) -> frozenset[str]:
        """The value alone."""
        return frozenset({"result"})


class Code(EffectComponent):
    """Runs a Python script in a sandbox, without files, network or processes, within limits of time and memory. The
    script reads its inputs as `inputs.price` or `inputs["unit-price"]`, or as value objects with `get_data_input`; it
    writes with `set_data_output`, and chooses its route with `set_result`, else `success`. Fails, with the line, when the
    script raises or goes beyond its limits.
    """

    type = "logic.code"
    title = "Code"
    ports = (
        CONTROL_IN,
        SUCCESS,
        FAILURE,
        PortSpec(category="data_input", route="language", description="`python`.", value_type="choice"),
        PortSpec(
            category="data_input",
            route="code",
            description="The script: text, or a message whose text parts are joined.",
            required=True,
        ),
        ERROR,
    )
    routes = ("success", "failure")
    open_ports = True
    open_routes = True
    constants = ("language",)
    repeatable = True

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        """Run the script."""
        given = {name: value for name, value in inputs.items() if name not in ("language", "code")}
        try:
            result = await context.services.scripts.run(
                unwrap(inputs["code"]), given, emit=context.emit_bounded, write=context.print_text
            )
        except ScriptError as error:
            raise ComponentError(error.message, reason=error.reason, line=error.line) from None
        return Outcome(route=result.route, outputs=result.outputs, terminal=result.terminal, bounded=True)

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """The language must be one there is, and the script a text."""
        found = []
        if unwrap(settings.get("language", "python")) != "python":
            found.append(("language", "must be `python`"))
        if "code" in settings and not isinstance(unwrap(settings["code"]), str):
            found.append(("code", "must be a text or a message"))
        return found

    def scripts(self, settings: Inputs) -> list[ScriptSetting]:
        """The one that is set."""
        text = unwrap(settings.get("code"))
        return [ScriptSetting(input="code", text=text)] if isinstance(text, str) else []

    def routes_taken(self, settings: Inputs) -> list[RouteSetting]:
        """Those that the script names in `set_result` and goes on with."""
        return [
            RouteSetting(route=call.route, input="code", line=call.line, column=call.column)
            for script in self.scripts(settings)
            for call in calls_of(script.text).routes
        ]

    def outputs_set(self, settings: Inputs) -> frozenset[str] | None:
        """Those that the script names in `set_data_output`, if it names all of them."""
        scripts = self.scripts(settings)
        return calls_of(scripts[0].text).outputs if scripts else None
