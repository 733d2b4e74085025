"""How much the answering of models may take."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

ENVELOPE_BYTES = 64 << 10
"""What is left of a message for what is around the items of outputs."""


class Batching(StrEnum):
    """When requests of several callers are answered together."""

    OFF = "off"
    NAMED = "named"
    """When the model calls the first dimension of all inputs and outputs by one name with `batch` in it, or says
    `blobhub.batch` = `rows` in its metadata."""
    FREE = "free"
    """Also when the first dimension of all inputs and outputs is free, whatever it is called. A model that mixes its rows
    would then mix the requests of its callers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What the process of one model may take."""

    max_memory_bytes: int = 4 << 30
    """Of address space; the libraries take 0.2 GiB of it."""
    max_load_seconds: float = 120
    max_run_seconds: float = 30
    """Of one batch, after which the process is killed."""
    max_answer_bytes: int = (4 << 20) - ENVELOPE_BYTES
    """Of the outputs of a request that does not say it otherwise."""
    threads: int = 1
    batching: Batching = Batching.NAMED


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What all models may take, and how many requests wait for one."""

    process: ProcessLimits = ProcessLimits()
    max_memory_bytes: int = 2 << 30
    """Of the processes of all models, by what they hold of it. A model that needs more is loaded alone."""
    max_models: int = 32
    max_queued: int = 256
    """Requests that wait for one model."""
    max_queued_bytes: int = 64 << 20
    """Of their inputs."""
    max_batch_requests: int = 64
    max_batch_rows: int = 256
    max_batch_bytes: int = 8 << 20
    """Of the inputs of a batch with more than one request in it."""
    idle_seconds: float = 300
    """How long a model stays loaded after its last request."""
    min_rest_seconds: float = 1
    max_rest_seconds: float = 300
    """How long a model that has ended its process is not loaded again; twice as long each time, up to this."""
