"""SQL of the workflow slice: one module per noun, each with its table and the statements on it."""

from pathlib import Path

from blobhub_server.workflow.store import (
    event,
    execution,
    log_size,
    message,
    server,
    session,
    session_object,
    signal,
    task,
    wait,
)

TABLES = (
    session.sessions,
    server.servers,
    execution.executions,
    message.messages,
    wait.waits,
    signal.signals,
    signal.signal_sizes,
    event.events,
    session_object.session_objects,
    log_size.log_sizes,
    task.tasks,
)

MIGRATIONS = Path(__file__).resolve().parent / "migrations"

__all__ = [
    "MIGRATIONS",
    "TABLES",
    "event",
    "execution",
    "log_size",
    "message",
    "server",
    "session",
    "session_object",
    "signal",
    "task",
    "wait",
]
