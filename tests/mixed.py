"""A workflow with something of every kind in it, and the server that its requests go to, which counts them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import flows
from blobhub.v1 import event_pb2
from port_values import expression
from scoping import controls, datas, inside, script
from web import Answer, Asked, Web, said

AGAIN = {"retry": {"maximum_attempts": 8, "initial_interval": "0.02s", "maximum_interval": "0.05s"}}


def mixed(url: str) -> str:
    """Side by side a script, a delay, a wait, a scope with requests and a `finally`, and requests for each of two items,
    whose results a loop turns round; then they are joined."""
    parts = [
        flows.component("start", "flow.start"),
        flows.component("count", "logic.expression", expression="1 + 1"),
        script("work", code="n = 0\nfor i in range(20000):\n    n += i\nset_data_output('n', n)"),
        flows.component("pause", "flow.delay", seconds=0.15),
        flows.component("hear", "flow.wait", name="go", timeout=0.3),
        flows.component("heard", "logic.expression", expression="'heard'"),
        flows.component("try", "flow.try", policy=AGAIN),
        *inside(
            "try",
            flows.component("ask", "http.request", url=f"{url}/ask", method="POST", policy=AGAIN),
            script("look", code="set_data_output('n', inputs.body)"),
            flows.component("found", "flow.end"),
            flows.component("tell", "http.request", url=f"{url}/tell", method="PUT", policy=AGAIN),
        ),
        flows.component("tried", "logic.expression", expression="'tried'"),
        flows.component("each", "flow.each", items=["a", "b"], concurrency=2, policy=AGAIN),
        *inside("each", flows.component("send", "http.request", url=f"{url}/send", method="POST", policy=AGAIN)),
        *inside("each", flows.component("sent", "flow.end", value=expression("item"))),
        flows.component("loop", "flow.loop", **{"while": "index < 2"}, state=expression("steps.each.results"), policy=AGAIN),
        *inside("loop", script("turn", code="set_data_output('n', inputs.given)", given=expression("steps.loop.state"))),
        *inside("loop", flows.component("turned", "flow.end", value=expression("steps.turn.n[1:] + steps.turn.n[:1]"))),
        flows.component("order", "flow.switch", cases=[{"route": "right", "when": "steps.loop.state == ['a', 'b']"}]),
        flows.component("join", "flow.join", mode="all"),
        script("again", code="set_data_output('n', 'done')"),
        flows.component("end", "flow.end"),
    ]
    ways = ["start.next count", *(f"count.success {each}" for each in ("work", "pause", "hear", "try", "each"))]
    ways += ["try.body ask", "ask.success look", "look.success found", "try.finally tell", "try.success tried"]
    ways += ["try.failure tried", "hear.received heard", "hear.timeout heard"]
    ways += ["work.success join", "pause.next join", "heard.success join", "tried.success join"]
    ways += ["each.body send", "send.success sent", "each.success loop", "loop.body turn", "turn.success turned"]
    ways += ["loop.success order", "order.right join"]
    ways += ["join.next again", "again.success end"]
    return flows.document(parts, controls(*ways) + datas("ask.body look.body", "look.n found.value", "again.n end.value"))


class Counting:
    """Answers requests, some of them badly, and knows which were sent under which key."""

    def __init__(self, seed: random.Random) -> None:
        self._seed = seed

    def respond(self, asked: Asked) -> Answer:
        return said("busy", status=503) if self._seed.random() < 0.2 else said("4")


def check_requests(web: Web, events: Sequence[event_pb2.Event]) -> int:
    """Each request was sent for a step of the log, under that step's key, and no more often than the step was attempted.

    How many were sent more than once.
    """
    attempts: Counter[str] = Counter()
    for event in events:
        if event.type == "processor.entered" and event.processor.processor_type == "http.request":
            attempts[f"{event.execution_id}/{event.processor.step}"] = 1
    for event in events:
        if event.type == "processor.retrying":
            key = f"{event.execution_id}/{event.processor.step}"
            if key in attempts:
                attempts[key] = event.processor_retrying.attempt
    sent = Counter(asked.headers["idempotency-key"] for asked in web.asked)
    assert sent.keys() <= attempts.keys()
    assert {key: count for key, count in sent.items() if count > attempts[key]} == {}
    return sum(count > 1 for count in sent.values())
