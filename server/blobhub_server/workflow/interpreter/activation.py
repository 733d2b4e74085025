"""Activations: an execution is one, and so is every run of a scope's body. They are a tree, whose root is the execution.

An activation has tokens, joins and outputs of its own. What is in it is looked up outward: its own outputs first, then
those of the activation that its scope's step is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blobhub_server.workflow.interpreter.joins import Joins
from blobhub_server.workflow.interpreter.tally import Tally

ROOT = 0
"""The number of the outermost activation, which is the execution."""
BODY, FINALLY = "body", "finally"
"""The parts of a scope: the routes that lead inside."""

Output = tuple[str, str]
"""An output of a component: its id, and the output's name."""


@dataclass(slots=True)
class Activation:
    """One run of a part of a scope, or the execution itself.

    `parent` is the activation that the scope's `step` is in; the root is its own. `round` says which run it is, from 0.
    `entered` counts the components entered in it, `active` the tokens that are ready or in open steps, `tokens` those and
    the ones that wait at joins. `late` has the marks of its open steps' tokens that have any, by step. `ending` says how it
    ends once the scopes in it are left; None while it goes on.

    Values in it are replaced and never changed in place.
    """

    number: int
    parent: int
    step: int
    part: str = BODY
    round: int = 0
    entered: int = 0
    active: int = 0
    tokens: int = 0
    late: dict[int, int] = field(default_factory=dict)
    joins: Joins = field(default_factory=Joins)
    outputs: dict[Output, Any] = field(default_factory=dict)
    ending: Mapping[str, Any] | None = None

    def copy(self) -> Activation:
        """An independent copy."""
        return Activation(  # Each turn makes one, and `replace` takes three times as long.
            number=self.number,
            parent=self.parent,
            step=self.step,
            part=self.part,
            round=self.round,
            entered=self.entered,
            active=self.active,
            tokens=self.tokens,
            late=dict(self.late),
            joins=self.joins.copy(),
            outputs=dict(self.outputs),
            ending=self.ending,
        )


@dataclass(slots=True)
class Scope:
    """How far a scope's step has come.

    `live` holds the activations that it waits for. `after` says how the step ends once there are none: it is set when its
    `finally` begins, or when no further round is to begin. `rounds` counts the rounds begun. `value` is what its rounds
    have come to: the state of a loop. `tally` is what the items of an `each` have come to, once one has begun.
    """

    live: tuple[int, ...] = ()
    rounds: int = 0
    after: Mapping[str, Any] | None = None
    value: Any = None
    tally: Tally | None = None

    def copy(self) -> Scope:
        """An independent copy."""
        return replace(self, tally=None if self.tally is None else self.tally.copy())
