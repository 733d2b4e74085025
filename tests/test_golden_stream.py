"""The events of scripts that print, emit and fail, and of scopes, as a watcher reads them: `golden/*_events.jsonl`."""

from __future__ import annotations

from typing import Any

import flows
import pytest
from blobhub.v1 import session_pb2
from calling import ask
from golden_events import golden, lines, shown
from port_values import expression
from scoping import controls, datas, inside
from served import Api

BEFORE = "print('one', 2, sep=', ')\nemit_output({'a': [1, None]})\nprint('é', end='')\nset_data_output('result', 'told')"
AFTER = "print('then')\nemit_output('last')\nprint()\nraise ValueError('no more')"

ONCE = "if inputs.tries == 2:\n    raise ValueError('once')\nset_data_output('n', inputs.index + 1)"


def document() -> str:
    """Two scripts; the second fails, and its failure leads to the end, which gives what the first has set."""
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [flows.component("first", "logic.code", code=BEFORE), flows.component("second", "logic.code", code=AFTER)]
    connections = [
        flows.control("start", "first"),
        flows.control("first", "second", "success"),
        flows.control("second", "end", "failure"),
        flows.data("first", "result", "end", "value"),
    ]
    return flows.document(parts, connections)


def joined(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events without their numbers, and texts printed one after the other as one: a busy machine may cut them."""
    told: list[dict[str, Any]] = []
    for event in events:
        kept = {name: value for name, value in event.items() if name != "execution_sequence"}
        last = told[-1].get("processor_output", {}) if told else {}
        output = kept.get("processor_output", {})
        if "printed" in last and "printed" in output:
            last["printed"] += output["printed"]
        else:
            told.append(kept)
    return told


def scopes() -> str:
    """A scope within a scope: the inner one is tried twice, fails, and is left; each has something that runs last."""
    parts = [
        flows.component("start", "flow.start"),
        flows.component("outer", "flow.try"),
        flows.component("end", "flow.end"),
    ]
    policy = {"retry": {"maximum_attempts": 2, "initial_interval": "0.01s"}}
    parts += inside(
        "outer", flows.component("inner", "flow.try", policy=policy), flows.component("last", "logic.code", code="")
    )
    parts += inside("inner", flows.component("fail", "flow.fail", reason="LOST", message="for ever", details=[1]))
    ways = ("start.next outer", "outer.body inner", "outer.finally last", "inner.body fail", "outer.failure end")
    return flows.document(parts, controls(*ways) + datas("outer.error end.value"))


def loop() -> str:
    """A loop of two rounds, the second of which fails once and is tried again."""
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts.append(flows.value("tries", "tries", persistence="execution", value=0))
    policy = {"retry": {"maximum_attempts": 2, "initial_interval": "0.01s"}}
    parts.append(flows.component("loop", "flow.loop", policy=policy, **{"while": "state < 2"}, state=0))
    parts += inside("loop", flows.component("count", "logic.expression", expression="tries + 1"))
    parts += inside("loop", flows.component("next", "logic.code", code=ONCE, index=expression("index")))
    parts += inside("loop", flows.component("done", "flow.end"))
    ways = ("start.next loop", "loop.body count", "count.success next", "next.success done", "loop.success end")
    data = ("tries.value count.tries", "count.result tries.value", "tries.value next.tries", "next.n done.value")
    return flows.document(parts, controls(*ways) + datas(*data, "loop.state end.value"))


def each() -> str:
    """Three items, one after the other; the first fails, as one may, and the last, because of which all fails."""
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts.append(flows.component("each", "flow.each", items=[0, 2, 0], concurrency=1, failures=1))
    parts += inside("each", flows.component("divide", "logic.expression", expression="6 / item"))
    parts += inside("each", flows.component("done", "flow.end", value=expression("steps.divide.result")))
    ways = ("start.next each", "each.body divide", "divide.success done", "each.failure end")
    return flows.document(parts, controls(*ways) + datas("each.error end.value"))


STREAMS = [("printed", document()), ("scope", scopes()), ("loop", loop()), ("each", each())]


@pytest.mark.parametrize(("name", "definition"), STREAMS)
async def test_what_watchers_are_told_is_in_order_and_always_the_same(api: Api, name: str, definition: str) -> None:
    session = await api.session(definition)
    await ask(api, "RunExecution", session=session, spec={"definition": "workflow"})
    request = session_pb2.WatchSessionRequest(session=session, replay_only=True)
    events = [event async for message in api.sessions.WatchSession(request) for event in message.events]
    read = [shown(event) for event in events if event.execution_sequence]
    assert [event.execution_sequence for event in events if event.execution_sequence] == list(range(1, len(read) + 1))
    told = lines(joined(read))
    assert told == golden(f"{name}_events.jsonl"), "\n".join(told)
