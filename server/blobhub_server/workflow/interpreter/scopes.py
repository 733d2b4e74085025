"""How activations end, and what the scopes do that they are of.

An activation that is left ends at once, unless there are scopes in it whose `finally` has to run. Then it is cut, so that
nothing but those goes on in it, and it ends when they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.components.scopes import ScopeComponent
from blobhub_server.workflow.interpreter.activation import BODY, FINALLY, ROOT
from blobhub_server.workflow.interpreter.ending import Ending, failed
from blobhub_server.workflow.interpreter.failure import bounded_details, cut, failure, failure_of
from blobhub_server.workflow.interpreter.scope_fold import scope_of, steps_within

GRACE_SECONDS = 30.0
"""How long the `finally` of scopes may take in all when an execution is stopped, or has taken longer than it may."""
_EARLY = 0.05
"""A timer may fire so many seconds before its time."""
_STOPPED = failure("STOPPED", "the execution is being stopped")
_LATE = failure("TIMEOUT", "the execution took longer than it may")


class Scopes(Ending):
    """Ends activations, and goes on with the scopes that they are of."""

    def _stop(self) -> None:
        """Begin to stop the execution; where a `finally` has to run, it is given time for that."""
        if not self._has_unfinished(ROOT):
            self._emit("flow.stopping")
            return
        until = self._now + GRACE_SECONDS
        self._emit(
            "flow.stopping", public={"until": until}, private={"ending": {"as": "stop", "error": _STOPPED, "until": until}}
        )
        self._begin_what_is_last(ROOT)

    def _time_out(self) -> None:
        ending = self._state.activations[ROOT].ending
        if ending is None or ending.get("error") != _LATE:
            self._leave(ROOT, failed(_LATE, again=False) | {"until": self._now + GRACE_SECONDS})

    def _leave(self, number: int, ending: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> None:
        """Leave an activation, which then ends as `ending` says, with the values that it is given."""
        if not self._has_unfinished(number):
            self._end_activation(number, {**ending, **(given or {})})
            return
        public = {"activation": number} | {name: ending[name] for name in ("error", "until") if name in ending}
        private = {"ending": dict(ending)} | ({"outputs": dict(given)} if given else {})
        if number == ROOT:
            self._emit("flow.ending", public=public, private=private)
        else:
            self._emit("scope.ending", self._state.activations[number].step, public, private)
        self._begin_what_is_last(number)

    def _has_unfinished(self, number: int) -> bool:
        """Whether a scope in an activation has a `finally` to run, or runs it."""
        state = self._state
        if not state.scopes:
            return False
        return any(FINALLY in self._node(step).control for step in steps_within(self._graph, state, number))

    def _begin_what_is_last(self, number: int) -> None:
        """In an activation that is left, begin the `finally` of scopes that wait for nothing inside."""
        for step in steps_within(self._graph, self._state, number):
            self._turn.touched.add(step)
            if not self._state.scopes[step].live:
                self._begin_finally(step, "", self._why(step))

    def _why(self, step: int) -> dict[str, Any]:
        """Why a scope is left from around it, as its `finally` is told: the error of the innermost that is left with one."""
        state, number = self._state, self._state.open[step].activation
        while True:
            activation = state.activations[number]
            if activation.ending is not None and "error" in activation.ending:
                return {"error": activation.ending["error"]}
            if number == ROOT:
                return {}
            number = activation.parent

    def _settle(self, number: int) -> None:
        """End an activation in which nothing is ready or open."""
        activation = self._state.activations[number]
        if activation.ending is not None and not self._state.is_left(number):
            self._end_activation(number, activation.ending)
        elif activation.tokens:
            starved = failure("JOIN_STARVED", activation.joins.starved(self._graph))
            self._end_activation(number, failed(starved, again=False))
        else:
            self._end_activation(number, {"as": "end"})

    def _end_activation(self, number: int, ending: Mapping[str, Any]) -> None:
        """End an activation in which nothing goes on; go on with its scope."""
        if number == ROOT:
            self._end_execution(ending)
            return
        state, activation = self._state, self._state.activations[number]
        step, part, left = activation.step, activation.part, state.is_left(number)
        id_ = state.open[step].component_id
        held = {name: value for (of, name), value in activation.outputs.items() if of == id_}
        public = {"activation": number, "part": part, "round": activation.round}
        error = None if left else ending.get("error")
        public |= {} if error is None else {"error": error}
        private = {"outputs": {"value": ending["value"]}} if "value" in ending else {}
        private |= {} if left or part == FINALLY else self._about_round(step, ending)
        self._emit("scope.exited", step, public, private)
        if left or (part == FINALLY and self._is_around_left(step, activation.parent)):
            self._go_on_leaving(step, part, error)
        elif part == FINALLY:
            again = ending if error is not None else state.scopes[step].after or {}
            self._end_finally(step, held, error, again=bool(again.get("again")))
        else:
            self._go_on_with(step, activation.round, held, ending)

    def _about_round(self, step: int, ending: Mapping[str, Any]) -> dict[str, Any]:
        """What else the record says that a round of a scope's body has ended."""
        return {}

    def _is_around_left(self, step: int, parent: int) -> bool:
        return self._state.activations[parent].ending is not None or self._state.is_left(parent)

    def _go_on_leaving(self, step: int, part: str, error: Mapping[str, Any] | None) -> None:
        """Go on with a scope that is left from around it. An error of `finally` takes the place of a terminal end."""
        root = self._state.activations[ROOT].ending
        if part == FINALLY and error is not None and root is not None and root["as"] == "exit":
            self._leave(ROOT, failed(error, again=False))
        if step in self._state.scopes and not self._state.scopes[step].live:
            self._begin_finally(step, "", self._why(step))

    def _end_execution(self, ending: Mapping[str, Any]) -> None:
        state = self._state
        match ending["as"]:
            case "stop":
                self._emit("flow.stopped")
            case "error":
                self._end_with_failure_of(ending["error"])
            case _:
                public: dict[str, Any] = {"steps": state.steps}
                if "value" in ending or state.has_result:
                    public["result"] = ending.get("value", state.result) if "value" in ending else state.result
                self._emit("flow.exited", public=public)

    def _end_with(self, reason: str, message: str) -> None:
        self._emit("flow.error", public={"error": failure(reason, message)})

    def _end_with_failure_of(self, told: Mapping[str, Any]) -> None:
        """Fail the execution with an error, which may be that of a component."""
        of = f"component {told['component_id']!r} failed: " if told["component_id"] else ""
        self._emit("flow.error", public={"error": {**told, "message": cut(f"{of}{told['message']}")}})

    def _begin_attempt(self, step: int) -> None:
        """Begin an attempt at a scope. Raises ComponentError."""
        until = self._end_of_attempt(step)
        first = self._scope_of(step).first(self._state.open[step].inputs)
        self.budget -= first.price
        if first.outcome is not None:
            self._complete(step, first.outcome, 0.0)
            return
        for number, given in enumerate(first.rounds):
            self._begin(step, BODY, number, given, until=until)

    def _end_of_attempt(self, step: int) -> float | None:
        """When an attempt that begins now has taken too long; None for never."""
        timeout = self._node(step).policy.timeout
        return None if timeout is None else self._now + timeout

    def _scope_of(self, step: int) -> ScopeComponent:
        return scope_of(self._graph, self._state.open[step].component_id)

    def _begin(self, step: int, part: str, number: int, given: Mapping[str, Any], **others: Any) -> None:
        """Begin an activation of a part of a scope, which takes as long as to enter a component."""
        self.budget -= 1
        public = {"activation": self._state.begun + 1, "part": part, "round": number}
        if "until" in others:
            public["until"] = others["until"]
        private: dict[str, Any] = {"outputs": dict(given)} if given else {}
        if "after" in others:
            private["after"] = others["after"]
        self._emit("scope.entered", step, public, private)

    def _begin_finally(self, step: int, route: str, given: Mapping[str, Any], *, again: bool = False) -> None:
        """Begin the `finally` of a scope, after which control leaves it by the route; "" where it is left from around it.

        `again` says whether another attempt at what is around the scope may help with the error that it is given.
        """
        until = (self._state.activations[ROOT].ending or {}).get("until")
        self._begin(step, FINALLY, 0, given, until=until, after={"finally": True, "route": route, "again": again})

    def _end_finally(self, step: int, held: Mapping[str, Any], error: Mapping[str, Any] | None, *, again: bool) -> None:
        """Leave a scope whose `finally` has ended, with what it was given when that began.

        `again` says whether another attempt at what is around the scope may help with the error that it ends with.
        """
        if error is not None:
            if "error" in held:
                own = {} if error["details"] is None else {"details": error["details"]}
                error = {**error, "details": bounded_details({"body": held["error"], **own})}
            self._give_up(step, dict(error), again=again)
        elif "error" in held:
            self._give_up(step, held["error"], again=again)
        else:
            self._complete(step, Outcome(route="success", outputs=held), 0.0)

    def _go_on_with(self, step: int, number: int, held: Mapping[str, Any], ending: Mapping[str, Any]) -> None:
        """Go on with a scope, a round of whose body has ended."""
        error, again = ending.get("error"), bool(ending.get("again"))
        if error is not None:
            if self._tries_again(step, dict(error), again=again):
                return
            self._end_body(step, {"error": error}, again=again)
        else:
            self._end_body(step, {"value": ending["value"]} if "value" in ending else {}, again=False)

    def _end_body(self, step: int, given: dict[str, Any], *, again: bool) -> None:
        """Run what a scope's `finally` leads to, if there is one; then leave it, with its value or error."""
        if FINALLY in self._node(step).control:
            self._begin_finally(step, "failure" if "error" in given else "success", given, again=again)
        else:
            self._end_finally(step, given, None, again=again)

    def _wake_scope(self, step: int) -> None:
        """The time has come to try a scope again, or to end what takes too long in it."""
        about, node = self._state.open[step], self._node(step)
        live = self._state.scopes[step].live
        if about.until is None or self._now + _EARLY < about.until:
            return
        if not live:
            try:
                self._begin_attempt(step)
            except ComponentError as error:
                self._fail(step, error)
            return
        late = ComponentError(f"took longer than {node.policy.timeout or GRACE_SECONDS:g} s", reason="TIMEOUT")
        self._leave_late(step, live, failed(failure_of(node.id, about.attempt, late), again=True))

    def _leave_late(self, step: int, live: Sequence[int], ending: Mapping[str, Any]) -> None:
        """Leave the activations of a scope that has taken too long."""
        for number in live:
            self._leave(number, ending)
