"""What a step says of the execution that it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """An execution to start from a step.

    `definition` is an alias or id in the revision of the execution that starts it, or a reference to one of another revision
    or blob. `inputs` are JSON values by alias. `session` is the alias of the session to run it in, which is opened where the
    revision has none. Without one a child of the same blob runs in the session of its parent, any other in one of its own.
    The step waits for `timeout` seconds at most; None for no end.
    """

    definition: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    session: str = ""
    timeout: float | None = None
