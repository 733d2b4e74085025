"""What an operator can set of models."""

from __future__ import annotations

from pydantic import Field

from blobhub_server.config import SettingsModel
from blobhub_server.onnx.processing.limits import ProcessingLimits


class OnnxSettings(SettingsModel):
    """What an operator can set of models."""

    model_processes: int = Field(1, gt=0, description="Models that are checked at once, each in a process of its own.")
    model_seconds: float = Field(300, gt=0, description="How long the check of one model may take.")
    model_memory_mib: int = Field(
        8192, ge=512, description="How much address space the check of one model may use; a model is there up to four times."
    )
    model_upload_days: float = Field(
        7, gt=0, description="How long an upload in parts stays open, and how long it is known after its end."
    )

    def processing_limits(self, max_model_bytes: int) -> ProcessingLimits:
        """What the check of a model of so many bytes at most may take."""
        limits = ProcessingLimits()
        return ProcessingLimits(
            max_model_bytes=min(limits.max_model_bytes, max_model_bytes),
            max_cpu_seconds=min(limits.max_cpu_seconds, max(1, round(self.model_seconds))),
            max_wall_seconds=self.model_seconds,
            max_memory_bytes=self.model_memory_mib << 20,
        )
