"""The errors of schedulers."""

from __future__ import annotations

TYPE = "blobhub.compute.scheduler"
"""The name of the blob type, which is the domain of its reasons."""
