"""SQL of the scheduler slice: one module per noun, each with its table and the statements on it."""

from pathlib import Path

from blobhub_server.scheduler.store import firing, schedule, version

TABLES = (schedule.schedules, version.schedule_versions, firing.firings, firing.firing_logs)

MIGRATIONS = Path(__file__).resolve().parent / "migrations"

__all__ = ["MIGRATIONS", "TABLES", "firing", "schedule", "version"]
