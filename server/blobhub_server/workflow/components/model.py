"""Components that ask models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from blobhub_server.blobtypes.inference import Infers, Question
from blobhub_server.blobtypes.nested import NotRectangular, flatten
from blobhub_server.blobtypes.reference import names_revision
from blobhub_server.errors import BlobHubError
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
)
from blobhub_server.workflow.values import unwrap

_OWN = ("model", "outputs", "inputs")
"""The data inputs that are no tensors."""


class Infer(EffectComponent):
    """Asks a model: all other data inputs are its tensors by name, as nested lists of numbers, texts or booleans. The answer
    is an object of tensors by name, likewise. Whoever started the execution must be able to read the model when it is asked.
    Fails when there is no such model, when it does not take the tensors, when its answer is more than a value may be, and
    when it is busy: what may pass is tried again if the policy says so.
    """

    type = "model.infer"
    title = "Infer"
    needs = MappingProxyType({Infers: "models to ask, in blobs of the type blobhub.model.onnx"})
    ports = (
        CONTROL_IN,
        SUCCESS,
        FAILURE,
        PortSpec(
            category="data_input",
            route="model",
            description=(
                "A reference to the model's revision, such as `acme/scorer@3`. It is resolved whenever the model is asked: "
                "`acme/scorer` follows the default revision."
            ),
            value_type="text",
            required=True,
        ),
        PortSpec(
            category="data_input",
            route="outputs",
            description="List of the names of the tensors that are wanted; all of them unless it is set.",
            value_type="json",
        ),
        PortSpec(
            category="data_input",
            route="inputs",
            description="Object of further tensors by name, for those that are called as a port here is.",
            value_type="json",
        ),
        PortSpec(category="data_output", route="outputs", description="Object of the model's answer, tensors by name."),
        PortSpec(category="data_output", route="revision_id", description="The id of the revision that was asked."),
        PortSpec(category="data_output", route="model_digest", description="SHA-256 of the model that was asked."),
        ERROR,
    )
    routes = ("success", "failure")
    open_ports = True
    repeatable = True

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        """Ask."""
        models = context.services.capability(Infers)
        settings = {name: unwrap(value) for name, value in inputs.items()}
        for name, message in _problems(settings):
            raise ComponentError(f"{name!r} {message}", reason="INVALID_INPUT", retryable=False)
        question = Question(
            organization_id=context.organization_id,
            actor_id=context.actor_id,
            model=settings["model"],
            inputs=_tensors(settings) | settings.get("inputs", {}),
            outputs=settings.get("outputs", ()),
        )
        try:
            answer = await models.infer(question)
        except BlobHubError as error:
            may_pass = error.retry_after_seconds is not None
            raise ComponentError(error.message, reason=error.reason, retryable=may_pass) from None
        outputs = {
            "outputs": answer.outputs,
            "revision_id": answer.revision_id,
            "model_digest": answer.model_digest,
        }
        return Outcome(route="success", outputs=outputs, bounded=True)

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """A reference must be one, names must be texts, and what is set for a tensor must be one."""
        return [*_problems({name: unwrap(value) for name, value in settings.items()})]

    def outputs_set(self, settings: Inputs) -> frozenset[str]:
        """Those that it declares."""
        return frozenset({"outputs", "revision_id", "model_digest"})


def _tensors(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _OWN}


def _problems(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with plain values, by data input."""
    model, outputs, further = (settings.get(name) for name in _OWN)
    if "model" in settings and not (isinstance(model, str) and names_revision(model)):
        yield "model", "must be a reference to a revision: `acme/scorer`, `acme/scorer@3`, or an id"
    if "outputs" in settings and not _are_names(outputs):
        yield "outputs", "must be a list of different names"
    if "inputs" in settings and not isinstance(further, dict):
        yield "inputs", "must be an object of tensors by name"
        further = {}
    tensors = _tensors(settings)
    for name, value in tensors.items():
        if message := _problem_of_tensor(value):
            yield name, message
    for name, value in (further or {}).items():
        if name in tensors:
            yield "inputs", f"has the tensor {name[:60]!r}, which is a data input of its own too"
        elif message := _problem_of_tensor(value):
            yield "inputs", f"has the tensor {name[:60]!r}, which {message}"


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value) and len(set(value)) == len(value)


def _problem_of_tensor(value: Any) -> str:
    """Why a value can be no tensor, whatever the model takes; empty when it may be one."""
    try:
        _, items = flatten(value)
    except NotRectangular as error:
        return f"must be nested lists, all of one length in each dimension, and not {error}"
    if any(item is None or isinstance(item, dict) for item in items):
        return "must be nested lists of numbers, texts or booleans"
    return ""
