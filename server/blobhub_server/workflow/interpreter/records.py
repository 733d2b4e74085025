"""The interpreter's records, happenings and commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blobhub_server.workflow.components.awaits import Await
from blobhub_server.workflow.components.contract import ComponentError, Outcome

if TYPE_CHECKING:
    from blobhub_server.workflow.interpreter.port_values import Evaluated


@dataclass(frozen=True, slots=True)
class Record:
    """One event of an execution: what watchers see (`public`), and what replay needs besides (`private`).

    `at` is unix time in seconds. `step` is the number of the step that it is about, and `attempt` which attempt at it, both
    from 1; `activation` that of the activation which the step is in. Both maps are JSON.
    """

    type: str
    at: float
    step: int | None = None
    attempt: int | None = None
    component_id: str | None = None
    activation: int = 0
    public: Mapping[str, Any] = field(default_factory=dict)
    private: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        made = {
            "type": self.type,
            "at": self.at,
            "step": self.step,
            "attempt": self.attempt,
            "component_id": self.component_id,
            "public": self.public,
            "private": self.private,
        }
        return made | {"activation": self.activation} if self.activation else made

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Record:
        """The record that a JSON object stands for."""
        return cls(**content)


@dataclass(frozen=True, slots=True)
class Started:
    """The execution is to begin, with these inputs by alias."""

    input_data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on with what is ready; nothing else has happened."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a step waited for has come: the end of its run after `elapsed` seconds, a signal, or whatever its await is for.

    `result` is None where it is the time that has come. `session` holds the session objects that the run was
    given, by alias, where it is only to count if they are the same now.
    """

    step: int
    attempt: int
    result: Outcome | Await | ComponentError | None = None
    elapsed: float = 0.0
    session: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StepOutput:
    """A step emits a value before it ends, or prints a text where there is one."""

    step: int
    value: Any = None
    printed: str = ""


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal has come, for the first of the steps that wait for it; it is kept while none does.

    `size_bytes` is its length as a message.
    """

    name: str
    key: str
    value: Any
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A worker has ended the task of an attempt at a step."""

    step: int
    attempt: int
    result: Outcome | ComponentError

    @property
    def completion(self) -> Completion:
        """What it is to the step."""
        return Completion(step=self.step, attempt=self.attempt, result=self.result)


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """The execution has ended that a step has started after so many failures of its attempts.

    `awaits` is what the step waits for, which may not be recorded yet.
    """

    step: int
    failures: int
    result: Outcome | ComponentError
    awaits: Await

    def completion(self, attempt: int) -> Completion:
        """What it is to the step, whose attempt that is by now: a server may have gone down under the one that began it."""
        return Completion(step=self.step, attempt=attempt, result=self.result)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The server went down while a step was run; the step is to be run again."""

    step: int


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody has asked the execution to stop."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """All running steps have been ended."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The execution's timeout has passed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The execution cannot go on for a reason outside of it."""

    reason: str
    message: str


Happening = (
    Started
    | Continue
    | Completion
    | StepOutput
    | Signalled
    | TaskEnded
    | ChildEnded
    | Interrupted
    | StopRequested
    | Stopped
    | TimedOut
    | Failed
)


@dataclass(frozen=True, slots=True)
class RunStep:
    """Run a component with these inputs, for at most `timeout` seconds; then say Completion.

    `failures` says how many attempts at the step have failed: where a server went down under one, the next is still that.
    `evaluated` is what some of the inputs were made of, where they are made again for a run on other session objects.
    """

    step: int
    attempt: int
    component_id: str
    inputs: Mapping[str, Any]
    timeout: float | None
    evaluated: Evaluated | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Say Completion when what is waited for comes, or at `until` (unix time; None: never), whichever is first."""

    step: int
    attempt: int
    awaits: Await
    until: float | None


@dataclass(frozen=True, slots=True)
class GoOn:
    """Say Continue after other executions had their turn, because there is more to evaluate in place."""


@dataclass(frozen=True, slots=True)
class Halt:
    """End what is run, wait for nothing any more, and say Stopped."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """End what is run of a step, which was given up."""

    step: int


Command = RunStep | Wait | GoOn | Halt | Cancel
