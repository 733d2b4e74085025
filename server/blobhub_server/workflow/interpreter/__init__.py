"""The pure core of the workflow slice: records are the truth, state is their fold."""

from blobhub_server.workflow.interpreter.graph import Graph, Node
from blobhub_server.workflow.interpreter.interpreter import advance, session_writes, todo
from blobhub_server.workflow.interpreter.records import (
    Command,
    Continue,
    Failed,
    Happening,
    Interrupted,
    Record,
    RunStep,
    Started,
    StepCompleted,
    StepFailed,
    StepOutput,
    Stopped,
    StopRequested,
    TimedOut,
    Timer,
    TimerFired,
)
from blobhub_server.workflow.interpreter.state import ExecutionState, apply, replay

__all__ = [
    "Command",
    "Continue",
    "ExecutionState",
    "Failed",
    "Graph",
    "Happening",
    "Interrupted",
    "Node",
    "Record",
    "RunStep",
    "Started",
    "StepCompleted",
    "StepFailed",
    "StepOutput",
    "StopRequested",
    "Stopped",
    "TimedOut",
    "Timer",
    "TimerFired",
    "advance",
    "apply",
    "replay",
    "session_writes",
    "todo",
]
