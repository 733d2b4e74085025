"""The errors of notes. The reasons are the values of `NotesErrorReason` in notes.proto."""

from __future__ import annotations

from blobhub_server.errors import BlobHubError

NAME = "stranger.notes"
"""The name of the blob type, which is the domain of its reasons."""


class EmptyNote(BlobHubError):
    """A note without text cannot be run."""

    domain, code, reason = NAME, "FAILED_PRECONDITION", "EMPTY_NOTE"

    def __init__(self, note: str) -> None:
        super().__init__("the note has no text", metadata={"note": note})
