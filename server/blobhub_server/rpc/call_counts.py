"""Calls counted, by method: how many began and ended, how, and how long they took. Plain numbers, kept on the event loop.

They are what the metrics `grpc_server_*` tell. The library that writes those is imported when somebody asks for them first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds."""

_TYPES = {
    "unary_unary": "unary",
    "stream_unary": "client_stream",
    "unary_stream": "server_stream",
    "stream_stream": "bidi_stream",
}
_LABELS = ("grpc_type", "grpc_service", "grpc_method")


@dataclass(slots=True)
class MethodCounts:
    """The counts of one method. `handled` is by code; `took` by bucket, those above all bounds last."""

    type: str
    service: str
    method: str
    started: int = 0
    received: int = 0
    sent: int = 0
    seconds: float = 0.0
    handled: dict[str, int] = field(default_factory=dict)
    took: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    @property
    def labels(self) -> Sequence[str]:
        """The values of the labels that all its metrics have."""
        return (self.type, self.service, self.method)

    def end(self, code: str, seconds: float) -> None:
        """Count the end of a call; `code` is the name of its status code."""
        self.handled[code] = self.handled.get(code, 0) + 1
        self.seconds += seconds
        self.took[bisect_left(BUCKETS, seconds)] += 1


class CallCounts:
    """The counts of all methods that were called since the start."""

    def __init__(self) -> None:
        self._methods: dict[str, MethodCounts] = {}

    def of(self, path: str, kind: str = "unary_unary") -> MethodCounts:
        """The counts of a method, `/package.Service/Method`; its kind is as gRPC names it."""
        found = self._methods.get(path)
        if found is None:
            service, _, method = path.removeprefix("/").rpartition("/")
            found = self._methods[path] = MethodCounts(type=_TYPES[kind], service=service or method, method=method)
        return found

    def collect(self) -> Iterable[Metric]:
        """The metrics, under the names that servers in other languages have them."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily  # noqa: PLC0415  slow to import

        every = list(self._methods.values())
        started = CounterMetricFamily("grpc_server_started", "Calls that have begun.", labels=_LABELS)
        received = CounterMetricFamily("grpc_server_msg_received", "Messages received.", labels=_LABELS)
        sent = CounterMetricFamily("grpc_server_msg_sent", "Messages sent.", labels=_LABELS)
        handled = CounterMetricFamily("grpc_server_handled", "Calls that have ended.", labels=[*_LABELS, "grpc_code"])
        took = HistogramMetricFamily("grpc_server_handling_seconds", "How long calls took.", labels=_LABELS)
        for counts in every:
            started.add_metric(counts.labels, counts.started)
            received.add_metric(counts.labels, counts.received)
            sent.add_metric(counts.labels, counts.sent)
            for code, number in [*counts.handled.items()]:
                handled.add_metric([*counts.labels, _spelled(code)], number)
            took.add_metric(counts.labels, _cumulative(counts.took), counts.seconds)
        return [started, received, sent, handled, took]


def _cumulative(took: Sequence[int]) -> list[tuple[str, float]]:
    """How many calls took at most so long, for each bound."""
    total, found = 0, []
    for bound, number in zip([*map(str, BUCKETS), "+Inf"], took, strict=True):
        total += number
        found.append((bound, float(total)))
    return found


def _spelled(code: str) -> str:
    """A status code as gRPC's metrics spell it: `OK`, `NotFound`, `Canceled`."""
    if code == "OK":
        return code
    return "Canceled" if code == "CANCELLED" else code.title().replace("_", "")
