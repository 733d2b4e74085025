"""How much the processing of one model may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessingLimits:
    """What a model may be, what its process may take, and how much may come of it."""

    max_model_bytes: int = (2 << 30) - 1  # what protobuf can hold
    max_nodes: int = 200_000
    max_graph_depth: int = 16
    max_tensor_elements: int = 1 << 31
    max_cpu_seconds: int = 120
    max_wall_seconds: float = 300
    max_memory_bytes: int = 8 << 30
    """Of address space; the libraries take 0.2 GiB of it. A model is there up to four times at once: as bytes, as messages,
    as what the checker or onnxruntime reads, and as a session."""
    max_document_bytes: int = 4 << 20
    """Of `model.json`."""
    max_drawn_nodes: int = 300
    """A graph with more nodes is drawn as its kinds of operators."""
