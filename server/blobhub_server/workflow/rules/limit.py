"""The names of the limits that workflows have."""

from __future__ import annotations

CHILDREN = "workflow.children_per_execution"
DEFINITIONS = "workflow.definitions_per_revision"
DEPTH = "workflow.execution_depth"
EXECUTIONS = "workflow.executions_per_session"
LOG_BYTES = "workflow.log_bytes"
OPEN_TASKS = "workflow.open_tasks"
SIGNAL_BYTES = "workflow.signal_bytes_per_blob"
SIGNALS = "workflow.signals_per_blob"
SESSIONS = "workflow.sessions_per_blob"
