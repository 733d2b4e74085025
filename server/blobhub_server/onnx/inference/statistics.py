"""What became of the requests to one model, as the Open Inference Protocol's ModelStatistics counts it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Statistics:
    """Counts and sums since the server began to count. Durations are in nanoseconds."""

    request_count: int = 0
    """That were answered."""
    row_count: int = 0
    """In all executions; a request to a model that is not batched is one row."""
    execution_count: int = 0
    """Batches that were answered."""
    queue_ns: int = 0
    compute_ns: int = 0
    """A request counts all of the time that its batch took."""
    total_ns: int = 0
    last_request_ms: int = 0
    """Since 1970."""
    failures: Counter[str] = field(default_factory=Counter)
    """By reason."""
    failed_ns: int = 0
    batches: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By rows, rounded up to powers of two: how many, and what they took."""

    def count_answer(self, *, queue_ns: int, compute_ns: int, total_ns: int, now_ms: int) -> None:
        """Note a request that was answered."""
        self.request_count += 1
        self.queue_ns += queue_ns
        self.compute_ns += compute_ns
        self.total_ns += total_ns
        self.last_request_ms = now_ms

    def count_failure(self, reason: str, total_ns: int) -> None:
        """Note a request that was not."""
        self.failures[reason] += 1
        self.failed_ns += total_ns

    def count_batch(self, rows: int, compute_ns: int) -> None:
        """Note an execution."""
        self.row_count += rows
        self.execution_count += 1
        size = 1 << max(rows - 1, 0).bit_length()
        count, took = self.batches.get(size, (0, 0))
        self.batches[size] = (count + 1, took + compute_ns)
