"""What an operator can set of notes."""

from __future__ import annotations

from blobhub_server.config import SettingsModel
from pydantic import Field


class NotesSettings(SettingsModel):
    """What an operator can set of notes."""

    notes_session: str = Field("notes", description="Alias of the session that notes are run in.")
    notes_seconds_per_line: float = Field(
        0, ge=0, description="How long to take for each line put into capitals, in seconds."
    )
