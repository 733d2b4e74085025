"""What an operator can set of schedulers."""

from __future__ import annotations

from pydantic import Field

from blobhub_server.config import SettingsModel


class SchedulerSettings(SettingsModel):
    """What an operator can set of schedulers."""

    firing_retention_days: float = Field(90, gt=0, description="How long a firing is kept after it and its execution.")
    max_firings_per_schedule: int = Field(
        10_000,
        gt=0,
        description="Firings that are kept of one schedule, beside those of the last hour and running ones.",
    )
