"""What processing finds out about a model, and how its process says it: one JSON object on its standard output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from blobhub_server.onnx.refusal import RefusalReason, Refused


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model."""

    name: str
    datatype: str
    """As the Open Inference Protocol names it, such as `FP32`; empty for what the protocol has no name for."""
    type: str
    """As onnxruntime writes it, such as `tensor(float)` or `seq(map(int64,tensor(float)))`."""
    shape: tuple[int, ...] | None
    """-1 for a free dimension; None where the number of dimensions is not known, and for what is no tensor."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model is, as far as one can say without running it."""

    sha256: str
    """Of the bytes that were checked, so that whoever stores them can compare."""
    ir_version: int
    opsets: dict[str, int]
    """Version by domain; the domain of ONNX itself is `ai.onnx`."""
    producer_name: str
    producer_version: str
    node_count: int
    parameter_count: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dot: str
    mermaid: str

    def encode(self) -> bytes:
        """The JSON that is stored of it."""
        own = {each.name for each in fields(Signature)}
        said = {name: value for name, value in asdict(self).items() if name in own}
        return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, text: bytes) -> Signature:
        """What was stored. Raises ValueError, KeyError or TypeError if it is nothing of the kind."""
        return Signature(**_with_specs(json.loads(text)))


@dataclass(frozen=True, slots=True)
class Report(Signature):
    """What processing finds out about a model."""

    model_json: str
    """The graph without weights, as JSON text."""


def encode_outcome(outcome: Report | Refused) -> bytes:
    """The JSON that the process answers with."""
    kind = "report" if isinstance(outcome, Report) else "refused"
    return json.dumps({kind: asdict(outcome)}).encode()


def decode_outcome(text: bytes) -> Report | Refused:
    """What the process has said. Raises ValueError, KeyError or TypeError if it is nothing of the kind."""
    said = json.loads(text)
    if "refused" in said:
        return Refused(reason=RefusalReason(said["refused"]["reason"]), message=said["refused"]["message"])
    return Report(**_with_specs(said["report"]))


def _with_specs(said: dict[str, Any]) -> dict[str, Any]:
    return said | {each: tuple(map(_spec, said[each])) for each in ("inputs", "outputs")}


def _spec(said: dict[str, Any]) -> TensorSpec:
    shape = said["shape"]
    return TensorSpec(**said | {"shape": None if shape is None else tuple(shape)})
