"""Process the model on the standard input: `python -I -m … limits`. The limits are JSON, and so is the answer, on the
standard output.

Whoever runs this reads what it writes, and takes an end without an answer for a refusal.
"""

from __future__ import annotations

import json
import os
import sys

from blobhub_server.onnx import confinement
from blobhub_server.onnx.processing.limits import ProcessingLimits
from blobhub_server.onnx.processing.report import encode_outcome
from blobhub_server.onnx.refusal import ModelRefused, RefusalReason


def main() -> None:
    """Limit this process, read the model, open nothing more, and only then look at the model."""
    limits = ProcessingLimits(**json.loads(sys.argv[1]))
    confinement.let_others_go_first()
    confinement.limit_resources(limits.max_memory_bytes)
    confinement.limit_processor_time(limits.max_cpu_seconds)
    confinement.limit_time(limits.max_wall_seconds)
    # Under its limits, and before nothing can be opened any more.
    from blobhub_server.onnx.processing.child import examination  # noqa: PLC0415

    try:
        model = _read_model(limits)
        confinement.open_nothing_more()
        outcome = encode_outcome(examination.examine(model, limits))
    except ModelRefused as refusal:
        outcome = encode_outcome(refusal.refused)
    sys.stdout.buffer.write(outcome)
    sys.stdout.buffer.flush()


def _read_model(limits: ProcessingLimits) -> bytes:
    size = os.fstat(0).st_size
    if size > limits.max_model_bytes:
        message = f"the model has {size} bytes; at most {limits.max_model_bytes} are allowed"
        raise ModelRefused(RefusalReason.TOO_LARGE, message)
    return sys.stdin.buffer.read(size)


main()
