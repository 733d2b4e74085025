"""The names of the limits that schedulers have."""

from __future__ import annotations

SCHEDULES = "scheduler.schedules_per_revision"
