"""The capability to ask models. It stands by itself: those who need it load no database with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to ask of which model, and on whose behalf.

    `model` is a reference to the revision that has the model. It is resolved when it is asked, so `acme/scorer@default`
    is the default of that time, and `acme/scorer@3` always the same. `inputs` are JSON values by the names of tensors:
    nested lists of numbers, texts or booleans. `outputs` names the tensors that are wanted; all of them where it is empty.

    `actor_id` is on whose behalf (`Caller.actor_id`), and `organization_id` whose turn it is where requests wait.
    """

    organization_id: str
    actor_id: str
    model: str
    inputs: Mapping[str, Any]
    outputs: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model answers: tensors by name as nested lists, within the bounds of one value; and which model it was."""

    outputs: Mapping[str, Any]
    revision_id: str
    model_digest: str


@runtime_checkable
class Infers(Protocol):
    """Something that can be asked: models, by reference."""

    blob_type: str
    """The type of the blobs that have the models."""

    async def infer(self, question: Question) -> Prediction:
        """Ask a model. Where the storage is away, this waits for it; where it is cancelled, the question is withdrawn.

        The actor needs the role `read` on the model's blob at this moment, or the blob is public. Floats that JSON has no
        number for are the texts `NaN`, `Infinity` and `-Infinity`, as in the JSON of protobuf, both ways.

        Raises PermissionDenied, NotFound, Renamed, InvalidReference, AmbiguousReference, WrongBlobType, ContentLost, and
        errors of the offering type: for tensors that the model does not take, for answers beyond the bounds of a value, and
        for what a model cannot compute. Those that may pass have `retry_after_seconds`.
        """
