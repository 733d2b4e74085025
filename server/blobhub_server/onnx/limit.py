"""The names of the limits that models have."""

from __future__ import annotations

MODEL_BYTES = "onnx.model_bytes"
UPLOADS = "onnx.uploads_per_blob"
