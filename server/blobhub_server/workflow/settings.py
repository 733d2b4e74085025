"""What an operator can set of workflows."""

from __future__ import annotations

from pydantic import Field

from blobhub_server.config import SettingsModel


class WorkflowSettings(SettingsModel):
    """What an operator can set of workflows."""

    lease_seconds: float = Field(10, gt=0, description="How long a server keeps its executions without renewing its lease.")
    code_workers: int = Field(2, gt=0, description="Worker processes that run `logic.code` scripts.")
    code_seconds: float = Field(5, gt=0, description="How long one script may run.")
    code_memory_mib: int = Field(64, gt=0, description="How much memory one script may use.")
