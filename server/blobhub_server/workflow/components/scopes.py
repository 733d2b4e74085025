"""Scopes: components that contain others, those that name them as `parent_id`. The interpreter runs what is inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    ERROR,
    FAILURE,
    SUCCESS,
    Component,
    ComponentKind,
    Inputs,
    Outcome,
    PortSpec,
)

BODY_PORT = PortSpec(category="flow_output", route="body", description="Leads inside, to where the body begins.")


@dataclass(frozen=True, slots=True)
class First:
    """What an attempt at a scope begins with: rounds of its body, each with the outputs it is given; or an outcome at once.

    `price` is what it takes of a turn's budget.
    """

    rounds: Sequence[Mapping[str, Any]] = ()
    outcome: Outcome | None = None
    price: int = 0


class ScopeComponent(Component):
    """Contains other components. Control enters them by the routes of `inside`, and leaves by the others."""

    kind = ComponentKind.SCOPE
    inside: tuple[str, ...] = ("body",)
    """The routes that lead inside."""
    given_inside: tuple[str, ...] = ()
    """The data outputs that have a value inside alone."""
    own_names: tuple[str, ...] = ()
    """The names that expressions in its settings see beside data inputs and data of the execution."""

    def first(self, inputs: Inputs) -> First:
        """What an attempt begins with: one round, unless it is overridden. Raises ComponentError."""
        return First(rounds=({},))

    def given(self, inputs: Inputs, value: Any, number: int) -> Mapping[str, Any]:
        """The outputs that a round of its body begins with, which are its inputs' and its `value`, so no record has them."""
        return {}


class Try(ScopeComponent):
    """Runs what is inside, from where `body` leads: until no token is left in there, or a `flow.end` inside is reached,
    whose value becomes the output `value`. An error in there that no `failure` handles ends the body; where the policy has a
    `retry`, all of it is tried again, and `timeout` is for one attempt at all of it. Then what `finally` leads to is run,
    once, however the body has ended, also when the execution is stopped or takes too long, for 30 seconds then. Then control
    leaves by `success` or `failure`. An error of `finally` takes the place of the body's, which is in its details as `body`.
    Inside of `finally` the outputs `value` and `error` are the body's.
    """

    type = "flow.try"
    title = "Try"
    ports = (
        CONTROL_IN,
        BODY_PORT,
        PortSpec(
            category="flow_output", route="finally", description="Leads inside, to what is run last, however it ended."
        ),
        SUCCESS,
        FAILURE,
        PortSpec(
            category="data_output", route="value", description="The value of the `flow.end` inside that ended the body."
        ),
        ERROR,
    )
    routes = ("body", "finally", "success", "failure")
    inside = ("body", "finally")
