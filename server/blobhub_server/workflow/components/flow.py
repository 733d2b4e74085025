"""Components that steer control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    MAX_REASON,
    MAX_ROUTE,
    Component,
    ComponentError,
    ComponentKind,
    ExpressionComponent,
    ExpressionContext,
    ExpressionSetting,
    Inputs,
    Outcome,
    PortSpec,
    PureComponent,
    RouteSetting,
    Slip,
)
from blobhub_server.workflow.components.expressions import Evaluation
from blobhub_server.workflow.values import unwrap

_NEXT = PortSpec(category="flow_output", route="next", description="Control leaves here.")

MAX_CASES = 256
"""How many cases a switch has at most; they may come through a connection, and are looked at before any is evaluated."""


MAX_SLIPS = 5
"""Of how many keys of a case it is said that they mean nothing."""


class Start(PureComponent):
    """Where an execution begins. A definition has exactly one."""

    type = "flow.start"
    title = "Start"
    ports = (_NEXT,)
    routes = ("next",)

    def run(self, inputs: Inputs) -> Outcome:
        """Go on."""
        return Outcome(route="next")


class End(PureComponent):
    """Ends the branch that reaches it; with `terminal`, the whole execution. What arrives at `value` becomes the
    execution's result; of a value object, what is inside it.
    """

    type = "flow.end"
    title = "End"
    ports = (
        CONTROL_IN,
        PortSpec(category="data_input", route="value", description="Becomes the execution's result."),
        PortSpec(
            category="data_input", route="terminal", description="True ends all other branches too.", value_type="boolean"
        ),
    )
    routes = ()

    def run(self, inputs: Inputs) -> Outcome:
        """Stop here."""
        outputs = {"value": unwrap(inputs["value"])} if "value" in inputs else {}
        return Outcome(route="end", outputs=outputs, terminal=unwrap(inputs.get("terminal")) is True)


class Fail(PureComponent):
    """Fails with a reason and a message of one's own. Nobody sees it through a route: it fails what it is in, as an error
    does whose component has no `failure` connected. An `error` that came out of another component is raised again, with
    `reason` and `message` in the place of its own where they are given.
    """

    type = "flow.fail"
    title = "Fail"
    ports = (
        CONTROL_IN,
        PortSpec(
            category="data_input",
            route="reason",
            description=f"An upper-case word for programs, at most {MAX_REASON} characters, such as `CARD_DECLINED`; "
            "`COMPONENT_ERROR` unless `error` has one.",
            value_type="text",
        ),
        PortSpec(category="data_input", route="message", description="The cause in words.", value_type="text"),
        PortSpec(
            category="data_input", route="details", description="What else programs are told: any JSON, at most 16 KiB."
        ),
        PortSpec(
            category="data_input", route="error", description="An error to raise again, as an output `error` gives it."
        ),
    )
    routes = ()

    def run(self, inputs: Inputs) -> Outcome:
        """Raise the error."""
        given = {name: unwrap(inputs[name]) for name in ("reason", "message", "details", "error") if name in inputs}
        again = given.get("error")
        raised = again if isinstance(again, dict) else {}
        told = {name: given.get(name, raised.get(name)) for name in ("reason", "message", "details")}
        for name in ("reason", "message"):
            if told[name] is not None and not isinstance(told[name], str):
                raise ComponentError(f"`{name}` must be a text", reason="INVALID_INPUT", retryable=False)
        raise ComponentError(told["message"] or "", reason=told["reason"] or "COMPONENT_ERROR", details=told["details"])

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """A reason that is set must be one."""
        reason = unwrap(settings.get("reason", "COMPONENT_ERROR"))
        if isinstance(reason, str) and 0 < len(reason) <= MAX_REASON:
            return []
        return [("reason", f"must be a text of 1 to {MAX_REASON} characters")]


class Switch(ExpressionComponent):
    """Takes the route of the first case whose expression is True, else `default`. `cases` is a list of {route, when}; the
    expressions are one line of Python each, whose names are all other data inputs, and data of the execution. Fails when one
    is neither True nor False.
    """

    type = "flow.switch"
    title = "Switch"
    ports = (
        CONTROL_IN,
        PortSpec(
            category="data_input",
            route="cases",
            description="List of {route, when}; `when` is one line of Python, such as `price > 100`.",
            value_type="json",
            required=True,
        ),
    )
    routes = ("default",)
    open_ports = True
    open_routes = True

    def run_in(self, inputs: Inputs, context: ExpressionContext | None) -> Outcome:
        """Choose."""
        evaluation = Evaluation(inputs, context, without=("cases",))
        cases = unwrap(inputs["cases"])
        for _, message in _case_problems(cases):
            raise ComponentError(f"`cases` {message}", reason="INVALID_INPUT", retryable=False)
        for number, case in enumerate(cases):
            try:
                chosen = evaluation.decision(case["when"])
            except ComponentError as error:
                error.message = f"case {number}: {error.message}"
                raise
            if chosen:
                return Outcome(route=case["route"], work=evaluation.work)
        return Outcome(route="default", work=evaluation.work)

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """Every case must have a route and an expression."""
        return _case_problems(unwrap(settings["cases"])) if "cases" in settings else []

    def expressions(self, settings: Inputs) -> list[ExpressionSetting]:
        """Those of all cases that are set."""
        cases = unwrap(settings.get("cases"))
        return [
            ExpressionSetting(input="cases", text=case["when"], within=f"[{number}].when", decides=True)
            for number, case in enumerate(cases[:MAX_CASES] if isinstance(cases, list) else [])
            if _is_case(case)
        ]

    def routes_taken(self, settings: Inputs) -> list[RouteSetting]:
        """Those of all cases that are set, and `default` unless a case is `True`."""
        cases = unwrap(settings.get("cases"))
        known = cases[:MAX_CASES] if isinstance(cases, list) else []
        taken = [
            RouteSetting(route=case["route"], input="cases", within=f"[{number}].route")
            for number, case in enumerate(known)
            if _is_case(case)
        ]
        always = any(_is_case(case) and case["when"].strip() == "True" for case in known)
        return taken if always else [*taken, RouteSetting(route="default")]

    def slips(self, settings: Inputs) -> list[Slip]:
        """Keys of cases that mean nothing, and cases that are never taken."""
        cases = unwrap(settings.get("cases"))
        found, before = list[Slip](), dict[str, int]()
        for number, case in enumerate(cases[:MAX_CASES] if isinstance(cases, list) else []):
            if not _is_case(case):
                continue
            for key in sorted(case.keys() - {"route", "when"})[:MAX_SLIPS]:
                message = f"means nothing: a case has `route` and `when`, and no {key[:60]!r}"
                found.append(Slip(message=message, input="cases", within=f"[{number}]", unknown_key=key))
            if (why := _never_taken(case["when"].strip(), before)) is not None:
                found.append(Slip(message=why, input="cases", within=f"[{number}].when"))
            before.setdefault(case["when"].strip(), number)
        return found

    def outputs_set(self, settings: Inputs) -> frozenset[str]:
        """None: it chooses, and makes nothing."""
        return frozenset()


def _case_problems(cases: Any) -> list[tuple[str, str]]:
    if not isinstance(cases, list) or len(cases) > MAX_CASES:
        return [("cases", f"must be a list of {{route, when}}, at most {MAX_CASES} of them")]
    message = f"must be an object with texts `route`, of 1 to {MAX_ROUTE} characters, and `when`"
    return [("cases", f"case {number} {message}") for number, case in enumerate(cases) if not _is_case(case)]


def _never_taken(when: str, before: Mapping[str, int]) -> str | None:
    """Why a case is never taken, as far as one can see; `before` has the numbers of those before it, by their `when`."""
    if when == "False":
        return "is never true, so this case is never taken"
    if "True" in before:
        return f"is never looked at: case {before['True']} is always taken before it"
    if when in before:
        return f"is that of case {before[when]}, which is taken before it, so this case never is"
    return None


def _is_case(case: Any) -> bool:
    if not isinstance(case, dict) or not all(isinstance(case.get(key), str) for key in ("route", "when")):
        return False
    return 0 < len(case["route"]) <= MAX_ROUTE


class Join(Component):
    """Brings branches together. With mode `all`, the default, it takes one token from each incoming connection, the oldest
    first, and leaves later ones for its next round. With mode `first` it goes on with the first token that comes; the tokens
    that are on their way to it at that moment are late, and swallowed when they come. An execution in which nothing else is
    left to do and a join still waits fails with `JOIN_STARVED`.
    """

    type = "flow.join"
    title = "Join"
    kind = ComponentKind.JOIN
    ports = (
        CONTROL_IN,
        _NEXT,
        PortSpec(category="data_input", route="mode", description="`all` or `first`.", value_type="choice"),
    )
    routes = ("next",)
    constants = ("mode",)

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """The mode must be one there is."""
        known = unwrap(settings.get("mode", "all")) in ("all", "first")
        return [] if known else [("mode", "must be `all` or `first`")]
