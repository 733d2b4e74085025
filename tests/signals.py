"""Definitions that wait for signals."""

from __future__ import annotations

import flows


def waits(*signals: tuple[str, str], timeout: float | None = None) -> str:
    """Wait for signals, by name and key, one after the other; the result is the list of what came with them."""
    ids = [f"wait-{number}" for number in range(len(signals))]
    limits = {} if timeout is None else {"timeout": timeout}
    awaited = list(zip(ids, signals, strict=True))
    names = [f"v{number}" for number in range(len(signals))]
    components = [
        flows.component("start", "flow.start"),
        *(flows.component(id_, "flow.wait", name=name, key=key, **limits) for id_, (name, key) in awaited),
        flows.component("all", "logic.expression", expression=f"[{', '.join(names)}]"),
        flows.component("end", "flow.end"),
        flows.component("late", "flow.end", value="too late"),
    ]
    connections = [flows.control("start", ids[0])]
    connections += [flows.control(one, next_, "received") for one, next_ in zip(ids, [*ids[1:], "all"], strict=True)]
    if limits:
        connections += [flows.control(id_, "late", "timeout") for id_ in ids]
    connections += [flows.data(id_, "value", "all", name) for id_, name in zip(ids, names, strict=True)]
    connections += [flows.control("all", "end", "success"), flows.data("all", "result", "end", "value")]
    return flows.document(components, connections)


def waiting() -> str:
    """What a signal brings is the result."""
    parts = [flows.component("start", "flow.start"), flows.component("wait", "flow.wait", name="go")]
    parts.append(flows.component("end", "flow.end"))
    joined = [flows.control("start", "wait"), flows.control("wait", "end", "received")]
    return flows.document(parts, [*joined, flows.data("wait", "value", "end", "value")])
