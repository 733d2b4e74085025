"""Components that BlobHub does not know, as somebody else would write them: one evaluated in place, one with an effect."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    ERROR,
    FAILURE,
    SUCCESS,
    ComponentContext,
    ComponentError,
    EffectComponent,
    Inputs,
    Outcome,
    PortSpec,
    PureComponent,
)
from blobhub_server.workflow.values import unwrap

_TEXT = PortSpec(category="data_input", route="text", description="The text.", value_type="text", required=True)


def _text(inputs: Inputs) -> str:
    text = unwrap(inputs["text"])
    if not isinstance(text, str):
        raise ComponentError("`text` must be a text", reason="INVALID_INPUT", retryable=False)
    return text


class Count(PureComponent):
    """Counts the words of a text. A text without words takes the route `empty`."""

    type = "words.count"
    title = "Count words"
    ports = (
        CONTROL_IN,
        SUCCESS,
        PortSpec(category="flow_output", route="empty", description="Control leaves here when there are no words."),
        FAILURE,
        _TEXT,
        PortSpec(category="data_output", route="count", description="How many words there are."),
        PortSpec(category="data_output", route="longest", description="The longest of them."),
        ERROR,
    )
    routes = ("success", "empty", "failure")

    def run(self, inputs: Inputs) -> Outcome:
        """Count."""
        words = _text(inputs).split()
        if not words:
            return Outcome(route="empty", outputs={"count": 0})
        return Outcome(route="success", outputs={"count": len(words), "longest": max(words, key=len)}, work=len(words))

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """What is set must be a text."""
        text = unwrap(settings.get("text", ""))
        return [] if isinstance(text, str | dict) else [("text", "must be a text")]


class Send(EffectComponent):
    """Sends a text to a service that takes each key once."""

    type = "words.send"
    title = "Send words"
    ports = (CONTROL_IN, SUCCESS, FAILURE, _TEXT, PortSpec(category="data_output", route="sent", description="It."), ERROR)
    routes = ("success", "failure")
    sent: ClassVar[Counter[str]] = Counter()
    """How often the service has taken something, by key."""

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        """Send."""
        text = _text(inputs)
        context.emit_output({"sending": text})
        if context.idempotency_key not in self.sent:
            self.sent[context.idempotency_key] += 1
        return Outcome(route="success", outputs={"sent": text})
