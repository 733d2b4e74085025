"""What an operator can set of models."""

from __future__ import annotations

from pydantic import Field

from blobhub_server.config import SettingsModel
from blobhub_server.onnx.inference.limits import Batching, EngineLimits, ProcessLimits
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
    inference_memory_mib: int = Field(
        2048,
        gt=0,
        description="Memory that the processes of loaded models may hold together; those not asked make room.",
    )
    inference_process_mib: int = Field(
        4096, ge=512, description="How much address space the process of one loaded model may use."
    )
    inference_models: int = Field(32, gt=0, description="Models that are loaded at once, each in a process of its own.")
    inference_threads: int = Field(1, gt=0, description="Threads that one model computes with.")
    inference_queue: int = Field(256, gt=0, description="Requests that wait for one model; callers go round in it.")
    inference_seconds: float = Field(
        30, gt=0, description="How long a model may compute at once, before its process is ended."
    )
    inference_idle_seconds: float = Field(300, gt=0, description="How long a model that nobody asks stays loaded.")
    inference_batching: Batching = Field(
        Batching.NAMED,
        description="Whether requests to a model are answered together along the first dimension: `off`; `named`, where the "
        "model has one name with `batch` in it for that of all inputs and outputs, or says `blobhub.batch` = `rows` in its "
        "metadata; `free`, wherever it is free, which mixes callers' data in a model that mixes its rows.",
    )

    def engine_limits(self) -> EngineLimits:
        """What the answering of models may take."""
        process = ProcessLimits(
            max_memory_bytes=self.inference_process_mib << 20,
            max_run_seconds=self.inference_seconds,
            threads=self.inference_threads,
            batching=self.inference_batching,
        )
        return EngineLimits(
            process=process,
            max_memory_bytes=self.inference_memory_mib << 20,
            max_models=self.inference_models,
            max_queued=self.inference_queue,
            idle_seconds=self.inference_idle_seconds,
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
