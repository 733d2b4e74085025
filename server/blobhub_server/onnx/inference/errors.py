"""The errors of inference, each with its gRPC status code and its reason."""

from __future__ import annotations

from blobhub_server.onnx.errors import OnnxError


class InferenceError(OnnxError):
    """The base class of the errors of inference."""


class InvalidTensor(InferenceError):
    """A tensor of a request is not what the model's signature says."""

    code, reason = "INVALID_ARGUMENT", "INVALID_TENSOR"

    def __init__(self, tensor: str, message: str, *, expected: str, got: str) -> None:
        """`tensor` is a name, as the request has it or the signature."""
        super().__init__(
            f"tensor {tensor!r} {message}: expected {expected}, got {got}",
            metadata={"tensor": tensor, "expected": expected, "got": got},
        )


class TensorNotServable(InferenceError):
    """The model takes or gives something that no request or answer can hold, such as a sequence of maps."""

    code, reason = "FAILED_PRECONDITION", "TENSOR_NOT_SERVABLE"

    def __init__(self, tensor: str, type_: str, *, is_input: bool) -> None:
        does = "needs" if is_input else "gives"
        super().__init__(
            f"the model {does} {tensor!r} of the type {type_}, which is not sent in requests or answers"
            + ("" if is_input else "; ask for other outputs"),
            metadata={"tensor": tensor, "type": type_},
        )


class InferenceRefused(InferenceError):
    """The model has no answer for these inputs: onnxruntime says so while it runs."""

    code, reason = "INVALID_ARGUMENT", "INFERENCE_REFUSED"

    def __init__(self, message: str, *, operator: str = "", node: str = "", tensor: str = "") -> None:
        found = {"operator": operator, "node": node, "tensor": tensor}
        super().__init__(message, metadata={key: value for key, value in found.items() if value})


class InferenceExhausted(InferenceError):
    """An answer takes more time, memory or room than it may; the same request would do so again."""

    code, reason = "RESOURCE_EXHAUSTED", "INFERENCE_EXHAUSTED"

    def __init__(self, what: str, message: str) -> None:
        """`what` is `time`, `memory` or `answer`."""
        super().__init__(message, metadata={"what": what})
        self.what = what


class InferenceCrashed(InferenceError):
    """The process of the model has ended while it computed the answer."""

    code, reason = "FAILED_PRECONDITION", "INFERENCE_CRASHED"

    def __init__(self, ending: str) -> None:
        super().__init__(f"the process of the model ended with {ending} while it computed", metadata={"ending": ending})


class ModelNotLoaded(InferenceError):
    """onnxruntime does not load the model, although it did when the model was processed."""

    code, reason = "FAILED_PRECONDITION", "INFERENCE_UNLOADABLE"

    def __init__(self, message: str) -> None:
        super().__init__(f"the model cannot be loaded: {message}")


class ModelResting(InferenceError):
    """The model has ended its process, or that of others' requests with it, and is loaded again in a while."""

    code, reason = "UNAVAILABLE", "INFERENCE_RESTING"

    def __init__(self, cause: str, retry_after_seconds: float) -> None:
        super().__init__(
            f"the model does not answer now: {cause}; try again in {retry_after_seconds:.1f} s",
            metadata={"cause": cause},
            retry_after_seconds=retry_after_seconds,
        )


class InferenceQueueFull(InferenceError):
    """More requests wait for the model than may."""

    code, reason = "RESOURCE_EXHAUSTED", "INFERENCE_QUEUE_FULL"

    def __init__(self) -> None:
        super().__init__("too many requests wait for this model; try again in a moment", retry_after_seconds=1)


class InferenceMemoryFull(InferenceError):
    """The models that are answering leave no memory to load another one."""

    code, reason = "RESOURCE_EXHAUSTED", "INFERENCE_MEMORY_FULL"

    def __init__(self) -> None:
        super().__init__(
            "the models that are answering now leave no memory to load this one; try again in a moment",
            retry_after_seconds=2,
        )
