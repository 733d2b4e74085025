"""onnxruntime, in the one way that it is used here. It is imported when the first model needs it, not before."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Any

QUIET_ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1"}
"""Since 1.29 the official Linux builds report sessions to Microsoft and keep a device id in the home directory. The variable
is read once, when the library is loaded; the function that turns telemetry off comes too late for the first report."""

_MEMORY = re.compile(r"bad_alloc|[Ff]ailed to allocate|BFCArena|not enough memory")
# Its codes, and then where in its sources it found something, with the function and the condition, or in short.
_NOISE = (
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |==> Context: |\s+"),
    re.compile(r"/\S+\.(?:cc|h):\d+ .*?(?: was false\. |\) (?=[A-Z]|\w+\.(?:cc|h):\d))"),
    re.compile(r"\b\w+\.(?:cc|h):\d+ \w+ "),
)


class ExtraMissing(Exception):
    """The packages of the extra `onnx` are not installed."""

    def __init__(self) -> None:
        super().__init__("ONNX models need packages that are not installed: pip install 'blobhub-server[onnx]'")


def require_extra() -> None:
    """Raise ExtraMissing if a package of the extra is not installed. Imports none of them."""
    if any(find_spec(package) is None for package in ("numpy", "onnx", "onnxruntime")):
        raise ExtraMissing


def load_runtime() -> Any:
    """The module `onnxruntime`, which ships no types. Raises ExtraMissing."""
    require_extra()
    os.environ.update(QUIET_ENVIRONMENT)
    import onnxruntime  # noqa: PLC0415  a hundred megabytes, which a server without models does not need

    return onnxruntime


def open_session(model: bytes, *, threads: int) -> Any:
    """An `InferenceSession` on the CPU. Raises what onnxruntime raises.

    Models come as bytes, never as a path: so there is no folder in which their external data would be looked for. The format
    is said, because onnxruntime takes bytes with `ORTM` at the fifth place for its own format, which nothing here checks.
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # Errors are raised, and said to the caller.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def plain_words(said: str) -> str:
    """What onnx or onnxruntime has said, on one line and without the places in its sources."""
    for noise in _NOISE:
        said = noise.sub(" ", said)
        said = " ".join(said.split())
    return said


def is_about_memory(said: str) -> bool:
    """Whether what they have said is that there was not enough memory."""
    return bool(_MEMORY.search(said))
