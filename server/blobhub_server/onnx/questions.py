"""The capability that models offer: being asked on behalf of whoever started something, without a call of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.inference import Infers, Prediction, Question
from blobhub_server.errors import InvalidValue
from blobhub_server.onnx.errors import TYPE
from blobhub_server.onnx.inference.errors import InferenceExhausted
from blobhub_server.onnx.inference.json_tensors import from_json, to_json
from blobhub_server.onnx.inference.tensor import Tensor
from blobhub_server.onnx.predictions import Predictions
from blobhub_server.turnstile import IN_PLACE_BYTES, off_loop

FEW_ITEMS = 500
"""How many items are read on the event loop."""


class Questions(Infers):
    """Implements `blobtypes.inference.Infers`."""

    blob_type = TYPE

    def __init__(self, host: Host, predictions: Predictions) -> None:
        self._host = host
        self._predictions = predictions

    async def infer(self, question: Question) -> Prediction:
        return await self._host.db.trouble.outlasted(lambda: self._infer(question))

    async def _infer(self, question: Question) -> Prediction:
        party = question.organization_id, question.actor_id
        revision = await self._host.actors.find_revision(question.actor_id, question.model)
        model = await self._predictions.find(revision, question.model, party)
        read = partial(from_json, question.inputs, model.stored.signature)
        inputs = await off_loop(0 if has_few_items([*question.inputs.values()]) else IN_PLACE_BYTES + 1, party, read)
        answer = await self._predictions.ask(model, inputs, question.outputs, party)
        size = sum(len(each.data) for each in answer.outputs)
        outputs = await off_loop(size, party, partial(make_outputs, answer.outputs))
        return Prediction(outputs=outputs, revision_id=revision.id, model_digest=model.digest)


def has_few_items(values: Sequence[Any]) -> bool:
    """Whether nested lists have few items. Looks at no more of them than that."""
    left, seen = [*values[:FEW_ITEMS]], len(values)
    while left and seen < FEW_ITEMS:
        value = left.pop()
        if isinstance(value, list):
            seen += len(value)
            left += value[:FEW_ITEMS]
    return seen < FEW_ITEMS


def make_outputs(tensors: Sequence[Tensor]) -> Mapping[str, Any]:
    """Tensors as JSON. Raises InferenceExhausted where that is no value, and TensorNotServable."""
    outputs = to_json(tensors)
    try:
        json_text.encode("the answer as JSON", outputs)
    except InvalidValue as error:
        raise InferenceExhausted("answer", f"{error}; ask for other outputs") from None
    return outputs
