"""Definitions with scopes for tests, written short, and what happens in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flows
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.interpreter import Completion, Halt, RunStep, Stopped, Wait
from interpreting import Run, compiled, replay

Result = Outcome | ComponentError
SUCCESS = Outcome(route="success")


def inside(scope: str, *components: dict[str, Any]) -> list[dict[str, Any]]:
    """Components that are inside of a scope."""
    return [{**component, "parent_id": scope} for component in components]


def script(id_: str, **values: Any) -> dict[str, Any]:
    return flows.component(id_, "logic.code", **({"code": "set_data_output('n', 1)"} | values))


def controls(*ways: str) -> list[dict[str, Any]]:
    """Connections of control, each as `source.route target`."""
    made = []
    for way in ways:
        source, target = way.split()
        id_, _, route = source.rpartition(".")
        made.append(flows.control(id_, target, route))
    return made


def datas(*ways: str) -> list[dict[str, Any]]:
    """Connections of data, each as `source.output target.input`."""
    return [flows.data(*source.rsplit(".", 1), *target.rsplit(".", 1)) for source, target in map(str.split, ways)]


def tried(*, policy: Any = None, handled: bool = True, last: bool = True) -> str:
    """`try` has the script `work`, whose output `n` is its value, and `clean` as its `finally`; then the end."""
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try", policy=policy)]
    parts += inside("try", script("work"), flows.component("done", "flow.end"), *([script("clean")] if last else []))
    parts += [flows.component("end", "flow.end"), *([flows.component("bad", "flow.end")] if handled else [])]
    ways = ["start.next try", "try.body work", "work.success done", "try.success end"]
    ways += ["try.finally clean"] if last else []
    ways += ["try.failure bad"] if handled else []
    data = ["work.n done.value", "try.value end.value", *(["try.error bad.value"] if handled else [])]
    return flows.document(parts, controls(*ways) + datas(*data))


class Played(Run):
    """A run whose scripts end as they are told, by their ids. Every prefix of its log is folded."""

    def __init__(self, document: str, **others: Any) -> None:
        super().__init__(compiled(document), **others)

    def play(self, **results: Result | list[Result] | Callable[[], object]) -> Played:
        """Have scripts end until nothing is left to do; those that are not named succeed, in the order of their steps."""
        if not self.records:
            self.start()
        while command := self._next():
            match command:
                case Wait():
                    self.now = max(self.now, command.until)
                    self.tell(Completion(step=command.step, attempt=command.attempt))
                case RunStep():
                    self.end(command, results)
                case Halt():
                    self.tell(Stopped())
        self.check()
        return self

    def end(self, command: RunStep, results: dict[str, Any]) -> None:
        result = results.get(command.component_id, SUCCESS)
        if isinstance(result, list):
            result = result.pop(0) if len(result) > 1 else result[0]
        if isinstance(result, Outcome | ComponentError):
            self.tell(Completion(step=command.step, attempt=command.attempt, result=result))
        else:
            self.tell(result)

    def _next(self) -> Any:
        """Something that is to be done: what is run first, then what comes first."""
        commands = self.pending()
        timed = [command for command in commands if isinstance(command, Wait) and command.until is not None]
        first = min(timed, key=lambda command: command.until, default=None)
        return next((command for command in commands if not isinstance(command, Wait)), first)

    def check(self) -> None:
        """Replaying the log leads to the state, from wherever one looks."""
        assert replay(self.graph, self.records, step_limit=self.state.step_limit) == self.state
        for length in range(len(self.records)):
            replay(self.graph, self.records[:length], step_limit=self.state.step_limit)

    @property
    def entered(self) -> list[str]:
        """The components entered, but for the first."""
        return [record.component_id for record in self.records if record.type == "processor.entered"][1:]

    @property
    def told(self) -> list[str]:
        """What happened to scopes, in short."""
        return [
            f"{record.type.removeprefix('scope.')} {record.public.get('part', '')} {record.public['activation']}"
            for record in self.records
            if record.type.startswith("scope.")
        ]
