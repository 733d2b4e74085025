"""What an operator can set of workflows."""

from __future__ import annotations

from pydantic import Field, field_validator

from blobhub_server.config import SettingsModel
from blobhub_server.http.outbound.allowance import Allowance


class WorkflowSettings(SettingsModel):
    """What an operator can set of workflows."""

    lease_seconds: float = Field(10, gt=0, description="How long a server keeps its executions without renewing its lease.")
    code_workers: int = Field(2, gt=0, description="Worker processes that run `logic.code` scripts.")
    code_seconds: float = Field(5, gt=0, description="How long one script may run.")
    code_memory_mib: int = Field(64, gt=0, description="How much memory one script may use.")
    http_allow: str = Field(
        "",
        description="Where components may send requests beside public addresses, separated by commas: hosts and addresses, "
        "with or without a port, and networks, such as `build.internal:8080,10.1.0.0/16`. A host is allowed wherever its "
        "name leads.",
    )

    @field_validator("http_allow")
    @classmethod
    def _require_targets(cls, text: str) -> str:
        _parse(text)
        return text

    @property
    def allowance(self) -> Allowance:
        """Where requests may go beside public addresses."""
        return _parse(self.http_allow)


def _parse(text: str) -> Allowance:
    return Allowance.parse(part for part in text.split(",") if part.strip())
