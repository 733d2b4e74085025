"""What the three event streams share: their batches on the wire, and the range they can be resumed in.

The messages of WatchSession, WatchExecution and RunExecution all have `repeated Event events = 1` and
`Progress progress = 2`; a test holds that. So a batch is written once, from the bytes in the log, and is the same
for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from blobhub.v1 import event_pb2, session_pb2

from blobhub_server.errors import SequenceOutOfRange
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.workflow.runtime.log import EventLog
from blobhub_server.workflow.runtime.watch import LAST_OF_EXECUTION, LAST_OF_SESSION, Idle, Watch
from blobhub_server.workflow.store.event import LoggedEvent

_EVENTS_TAG = b"\x0a"
"""Field 1, length-delimited: https://protobuf.dev/programming-guides/encoding/#structure"""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def pack(batch: Sequence[LoggedEvent] | Idle, now: datetime) -> bytes:
    """A stream message, encoded."""
    if isinstance(batch, Idle):
        progress = event_pb2.Progress(sequence=batch.sequence, time=to_timestamp(now))
        return session_pb2.WatchSessionResponse(progress=progress).SerializeToString()
    return b"".join(part for line in batch for part in (_EVENTS_TAG, _varint(len(line.event)), line.event))


def check_range(after: int, last: int) -> None:
    """Raise SequenceOutOfRange when a watch asks to resume behind the log's end."""
    if after > last:
        raise SequenceOutOfRange(1, last)


def watch_session(log: EventLog, session_id: str, progress_seconds: float) -> Watch:
    """A watch of a session's log, numbered by `sequence`."""
    return Watch(
        topic=session_id,
        read=lambda after: log.session(session_id, after),
        number=lambda line: line.sequence,
        last=LAST_OF_SESSION,
        progress_seconds=progress_seconds,
    )


def watch_execution(log: EventLog, execution_id: str, progress_seconds: float) -> Watch:
    """A watch of an execution's log, numbered by `execution_sequence`."""
    return Watch(
        topic=execution_id,
        read=lambda after: log.execution(execution_id, after),
        number=lambda line: line.execution_sequence,
        last=LAST_OF_EXECUTION,
        progress_seconds=progress_seconds,
    )
