"""The errors of the transport: what ends a call whatever its method does."""

from __future__ import annotations

from typing import ClassVar

from blobhub_server.errors import BlobHubError, LimitExceeded


class StreamEnded(BlobHubError):
    """The server ends a stream that can be resumed after `last_sequence`, the last number it sent; None for no number."""

    code = "UNAVAILABLE"
    text: ClassVar[str]

    def __init__(self, last_sequence: int | None = None) -> None:
        metadata = {} if last_sequence is None else {"last_sequence": str(last_sequence)}
        super().__init__(self.text, metadata=metadata, retry_after_seconds=1.0)


class ShuttingDown(StreamEnded):
    """The server shuts down."""

    reason = "SHUTTING_DOWN"
    text = "the server is shutting down"


class StreamUnread(StreamEnded):
    """The stream's client did not read for too long, or leaves too much unread."""

    reason = "STREAM_UNREAD"
    text = "what was sent is not read, and the stream was ended; go on after what was received last"


class TooManyStreams(LimitExceeded):
    """The caller, or the address of one whom nothing identifies, has as many streams open as they may."""

    def __init__(self, limit: str, value: int, sender: str) -> None:
        super().__init__(limit, value, sender)
        self.retry_after_seconds = 5.0


class RequestUnfinished(BlobHubError):
    """The call's message did not arrive in time."""

    code, reason = "DEADLINE_EXCEEDED", "REQUEST_UNFINISHED"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a request has to arrive within {seconds:g} s, and this one did not")
