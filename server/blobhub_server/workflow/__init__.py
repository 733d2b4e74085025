"""The workflow slice: definitions, sessions, executions and their events."""

from blobhub_server.workflow.blob_type import WorkflowType

__all__ = ["WorkflowType"]
