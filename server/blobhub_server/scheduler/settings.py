"""What an operator can set of schedulers."""

from __future__ import annotations

from blobhub_server.config import SettingsModel


class SchedulerSettings(SettingsModel):
    """What an operator can set of schedulers."""
