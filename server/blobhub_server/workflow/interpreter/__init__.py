"""The pure core of the workflow slice: records are the truth, state is their fold."""

from blobhub_server.workflow.interpreter.interpreter import Turn, advance, session_writes, todo
from blobhub_server.workflow.interpreter.records import (
    Command,
    Completion,
    Continue,
    Failed,
    Happening,
    Interrupted,
    Record,
    RunStep,
    Started,
    StepOutput,
    Stopped,
    StopRequested,
    TimedOut,
    Wait,
)
from blobhub_server.workflow.interpreter.state import ENDINGS, RECORD_TYPES, TERMINAL, ExecutionState, apply, replay

__all__ = [
    "ENDINGS",
    "RECORD_TYPES",
    "TERMINAL",
    "Command",
    "Completion",
    "Continue",
    "ExecutionState",
    "Failed",
    "Happening",
    "Interrupted",
    "Record",
    "RunStep",
    "Started",
    "StepOutput",
    "StopRequested",
    "Stopped",
    "TimedOut",
    "Turn",
    "Wait",
    "advance",
    "apply",
    "replay",
    "session_writes",
    "todo",
]
