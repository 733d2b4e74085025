"""The pure core of the workflow slice. An execution's state is the fold of its log records."""

from blobhub_server.workflow.interpreter.children import Try, is_open, tries_over
from blobhub_server.workflow.interpreter.commands import todo
from blobhub_server.workflow.interpreter.fold import ENDINGS, RECORD_TYPES, apply
from blobhub_server.workflow.interpreter.interpreter import advance
from blobhub_server.workflow.interpreter.needs import needs
from blobhub_server.workflow.interpreter.price import BUDGET
from blobhub_server.workflow.interpreter.records import (
    Cancel,
    ChildEnded,
    Command,
    Completion,
    Continue,
    Failed,
    GoOn,
    Halt,
    Happening,
    Interrupted,
    Record,
    RunStep,
    Signalled,
    Started,
    StepOutput,
    Stopped,
    StopRequested,
    TaskEnded,
    TimedOut,
    Wait,
)
from blobhub_server.workflow.interpreter.rest import rests_until
from blobhub_server.workflow.interpreter.session_values import MAX_STEP_BYTES, Unread, are_unread, beyond_reading, reread
from blobhub_server.workflow.interpreter.signal_waits import WaitChanges
from blobhub_server.workflow.interpreter.size import json_memory
from blobhub_server.workflow.interpreter.state import TERMINAL, ExecutionState
from blobhub_server.workflow.interpreter.tasks import NO_TASKS, TaskTurn, task_turn
from blobhub_server.workflow.interpreter.turn import Turn

__all__ = [
    "BUDGET",
    "ENDINGS",
    "MAX_STEP_BYTES",
    "NO_TASKS",
    "RECORD_TYPES",
    "TERMINAL",
    "Cancel",
    "ChildEnded",
    "Command",
    "Completion",
    "Continue",
    "ExecutionState",
    "Failed",
    "GoOn",
    "Halt",
    "Happening",
    "Interrupted",
    "Record",
    "RunStep",
    "Signalled",
    "Started",
    "StepOutput",
    "StopRequested",
    "Stopped",
    "TaskEnded",
    "TaskTurn",
    "TimedOut",
    "Try",
    "Turn",
    "Unread",
    "Wait",
    "WaitChanges",
    "advance",
    "apply",
    "are_unread",
    "beyond_reading",
    "is_open",
    "json_memory",
    "needs",
    "reread",
    "rests_until",
    "task_turn",
    "todo",
    "tries_over",
]
