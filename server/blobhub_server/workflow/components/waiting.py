"""Components that wait: for a time, or for a signal."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from blobhub_server.workflow.components.awaits import Await, instant, signal, time
from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    MAX_ROUTE,
    ComponentError,
    Inputs,
    PortSpec,
    PureComponent,
    RouteSetting,
)
from blobhub_server.workflow.components.spans import is_span, timeout_of
from blobhub_server.workflow.values import unwrap

_SPAN = "must be a number from 0 to a year"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Delay(PureComponent):
    """Waits so many seconds, or until an instant, also across restarts of the server. One of the two is set. An instant that
    has passed is not waited for.
    """

    type = "flow.delay"
    title = "Delay"
    ports = (
        CONTROL_IN,
        PortSpec(category="flow_output", route="next", description="Control leaves here."),
        PortSpec(category="data_input", route="seconds", description="How long to wait.", value_type="float"),
        PortSpec(
            category="data_input",
            route="until",
            description="Until when: a date and time with an offset (RFC 3339), such as `2027-03-28T02:30:00+01:00`.",
            value_type="text",
        ),
    )
    routes = ("next",)
    alternatives = (("seconds", "until"),)

    def run(self, inputs: Inputs) -> Await:
        """Wait."""
        given = {name: unwrap(value) for name, value in inputs.items()}
        for name, message in _problems(given):
            raise ComponentError(f"`{name}` {message}", reason="INVALID_INPUT", retryable=False)
        if "seconds" in given:
            return time(float(given["seconds"]))
        if "until" in given:
            return instant(_instant(given["until"]).timestamp())
        raise ComponentError("neither `seconds` nor `until` has a value", reason="MISSING_INPUT", retryable=False)

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """What is set must be something that can be waited for, and one thing."""
        return _problems({name: unwrap(value) for name, value in settings.items()})


def _problems(given: Inputs) -> list[tuple[str, str]]:
    """What is wrong with plain inputs of a delay, by input."""
    found = []
    if "seconds" in given and "until" in given:
        found.append(("until", "must not have a value beside `seconds`: it is the one or the other"))
    if "seconds" in given and not is_span(given["seconds"]):
        found.append(("seconds", _SPAN))
    if "until" in given:
        try:
            _instant(given["until"])
        except ValueError as error:
            found.append(("until", str(error)))
    return found


def _instant(text: Any) -> datetime:
    """The instant that a text says. Raises ValueError."""
    if not isinstance(text, str) or not _INSTANT.fullmatch(text):
        raise ValueError("must be a date and time with an offset (RFC 3339), such as 2027-03-28T02:30:00+01:00")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no time that there is in the years 1 to 9999") from None


class Wait(PureComponent):
    """Waits for a signal of a name and a key, also across restarts of the server. SignalExecution sends one to an execution,
    SendSignal to whichever waits. One that came before is taken at once; of several the oldest. Each signal is taken once.
    """

    type = "flow.wait"
    title = "Wait"
    ports = (
        CONTROL_IN,
        PortSpec(category="flow_output", route="received", description="Control leaves here when the signal has come."),
        PortSpec(category="flow_output", route="timeout", description="Control leaves here when it has not come in time."),
        PortSpec(
            category="data_input",
            route="name",
            description="The signal's name, such as `decision`: 1 to 256 characters.",
            value_type="text",
            required=True,
        ),
        PortSpec(
            category="data_input",
            route="key",
            description="Of signals of that name, which: an order's number, say. Up to 256 characters; empty unless set.",
            value_type="text",
        ),
        PortSpec(
            category="data_input",
            route="timeout",
            description="How many seconds to wait; without an end unless it is set.",
            value_type="float",
        ),
        PortSpec(category="data_output", route="value", description="What came with the signal."),
    )
    routes = ("received", "timeout")

    def run(self, inputs: Inputs) -> Await:
        """Wait."""
        given = {name: unwrap(value) for name, value in inputs.items()}
        for name, message in _signal_problems(given):
            raise ComponentError(f"`{name}` {message}", reason="INVALID_INPUT", retryable=False)
        return signal(given["name"], given.get("key", ""), timeout_of(given))

    def routes_taken(self, settings: Inputs) -> list[RouteSetting]:
        """`received`, and `timeout` where there is one."""
        return [RouteSetting(route="received"), RouteSetting(route="timeout", input="timeout", with_input=True)]

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """A name and a key must be texts that a signal can have, and a timeout one that can be waited for."""
        return _signal_problems({name: unwrap(value) for name, value in settings.items()})


def _signal_problems(given: Inputs) -> list[tuple[str, str]]:
    """What is wrong with plain inputs of a wait, by input."""
    found = []
    for name, least in (("name", 1), ("key", 0)):
        if name in given and not _is_word(given[name], least):
            found.append((name, f"must be a text of {least} to {MAX_ROUTE} characters, none of them a control character"))
    if "timeout" in given and not is_span(given["timeout"]):
        found.append(("timeout", _SPAN))
    return found


def _is_word(value: Any, least: int) -> bool:
    return isinstance(value, str) and least <= len(value) <= MAX_ROUTE and not _CONTROL.search(value)
