"""Scopes whose body is run more than once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    ERROR,
    FAILURE,
    SUCCESS,
    ComponentError,
    ExpressionContext,
    ExpressionSetting,
    Inputs,
    PortSpec,
)
from blobhub_server.workflow.components.expressions import Evaluation
from blobhub_server.workflow.components.scopes import BODY_PORT, ScopeComponent
from blobhub_server.workflow.values import unwrap

STATE, INDEX, ITEM = "state", "index", "item"
_WHILE = "while"


class Loop(ScopeComponent):
    """Runs what is inside, from where `body` leads, again and again while the expression `while` is True, which is looked
    at before each round. A round begins with the `state` that the one before has left, which is the value of the `flow.end`
    inside that has ended it; one that ends without a value leaves the state as it was. Then control leaves by `success`. A
    round that fails is tried again, from the state that it began with, as the policy says; its `timeout` is for one round.
    """

    type = "flow.loop"
    title = "Loop"
    ports = (
        CONTROL_IN,
        BODY_PORT,
        SUCCESS,
        FAILURE,
        PortSpec(
            category="data_input",
            route=_WHILE,
            description="One line of Python, such as `state.pending and index < 10`, whose names are `state`, `index`, "
            "which is the number of the round that would begin, from 0, all other data inputs, and data of the execution, "
            "but not of the session.",
            value_type="text",
            required=True,
        ),
        PortSpec(category="data_input", route=STATE, description="What the first round begins with; null unless it is set."),
        PortSpec(
            category="data_output",
            route=STATE,
            description="Inside, what the round has begun with; outside, what the last one has left.",
        ),
        PortSpec(category="data_output", route=INDEX, description="Inside, the number of the round, from 0."),
        PortSpec(category="data_output", route="rounds", description="How many rounds there were."),
        ERROR,
    )
    routes = ("body", "success", "failure")
    constants = (_WHILE,)
    open_ports = True
    given_inside = (INDEX,)
    own_names = (STATE, INDEX)

    def given(self, inputs: Inputs, value: Any, number: int) -> Mapping[str, Any]:
        """The state and the number of a round."""
        return {STATE: value, INDEX: number}

    def begins_with(self, inputs: Inputs) -> Any:
        """The state before the first round."""
        return unwrap(inputs.get(STATE))

    def goes_on(self, inputs: Inputs, context: ExpressionContext) -> bool:
        """Whether another round is to begin; `context` has the names `state` and `index` too. Raises ComponentError."""
        evaluation = Evaluation(inputs, context, without=(_WHILE, STATE))
        try:
            return evaluation.decision(unwrap(inputs[_WHILE]))
        except ComponentError as error:
            error.message = f"`{_WHILE}`: {error.message}"
            raise

    def expressions(self, settings: Inputs) -> list[ExpressionSetting]:
        """The one that says whether it goes on."""
        text = unwrap(settings.get(_WHILE))
        return [ExpressionSetting(input=_WHILE, text=text, decides=True)] if isinstance(text, str) else []

    def outputs_set(self, settings: Inputs) -> frozenset[str]:
        """Those that it declares."""
        return frozenset({STATE, INDEX, "rounds", "error"})
