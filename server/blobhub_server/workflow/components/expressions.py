"""Expressions as components use them: over their data inputs, within the work that one activation may do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blobhub_server.blobtypes.expressions import ExpressionError, Fuel, evaluate, parse
from blobhub_server.workflow.components.contract import ComponentError, ExpressionContext, Inputs
from blobhub_server.workflow.values import unwrap

INPUTS = "inputs"
"""The name of all inputs together, for those whose own names Python does not read: `inputs["unit-price"]`."""


class Evaluation:
    """Evaluates expressions over a component's inputs. All that one activation evaluates share the fuel of one."""

    def __init__(self, inputs: Inputs, context: ExpressionContext | None, *, without: Iterable[str]) -> None:
        own = {name: unwrap(value) for name, value in inputs.items() if name not in without}
        self._names: dict[str, Any] = {INPUTS: own} | own
        self._bounded = list(inputs.values())
        if context is None:
            self._fuel = Fuel()
        else:
            self._names, self._fuel = {**context.names, **self._names}, context.fuel
        self._left_before = self._fuel.left

    @property
    def work(self) -> int:
        """The units of fuel that it has spent so far."""
        return self._left_before - self._fuel.left

    def value(self, text: Any) -> Any:
        """The value of an expression, as JSON. Raises ComponentError."""
        if not isinstance(text, str):
            raise self._error("INVALID_INPUT", "an expression is a text", line=None)
        try:
            return evaluate(parse(text), self._names, self._fuel, bounded=self._bounded)
        except ExpressionError as error:
            raise self._error(error.reason, message_of(error), line=error.line or None) from None

    def decision(self, text: Any) -> bool:
        """The value of an expression that is true or false. Raises ComponentError."""
        value = self.value(text)
        if isinstance(value, bool):
            return value
        kind = "None" if value is None else type(value).__name__
        raise self._error("EXPRESSION_TYPE", f"must be True or False, not a value of type {kind}", line=None)

    def _error(self, reason: str, message: str, *, line: int | None) -> ComponentError:
        return ComponentError(message, reason=reason, line=line, retryable=False, work=self.work)


def message_of(error: ExpressionError) -> str:
    """What is wrong with an expression, and where in it."""
    return f"{error.message} (line {error.line}, column {error.column})" if error.line else error.message
