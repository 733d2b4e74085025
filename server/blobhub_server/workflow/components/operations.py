"""What becomes of a value when another is written to it: the operations of `data.value`.

An operation says what is to change and not what is to be there afterwards. So of two steps that write at the same time
neither undoes what the other has done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue
from blobhub_server.workflow.components.contract import ComponentError
from blobhub_server.workflow.values import is_number, type_of, unwrap, wrap_like

SET, ADD = "set", "add"
_BYTES_OF_WORK = 100
"""How many bytes of JSON are made and looked at in a microsecond, which is the unit of `Outcome.work`."""


def operate(operation: str, current: Any, given: Any) -> Any:
    """The value after an operation, within no bounds yet. Raises ComponentError where it cannot be applied to `current`."""
    return _OPERATIONS[operation](current, given)


def initial(operation: str) -> Any:
    """What an operation is applied to where there is no value."""
    return _INITIAL[operation]


def require_bounds(alias: str, value: Any) -> int:
    """How much work a value is that an operation has made. Raises ComponentError when it is beyond the bounds of a value."""
    try:
        return len(json_text.encode(f"the value {alias!r}", value)) // _BYTES_OF_WORK
    except InvalidValue as error:
        raise ComponentError(str(error), reason="INVALID_OUTPUT", retryable=False) from None


def _set(current: Any, given: Any) -> Any:
    return given


def _add(current: Any, given: Any) -> Any:
    """The sum of two numbers; that of integers is exact."""
    total, more = unwrap(current), unwrap(given)
    for number in (total, more):
        if not is_number(number):
            raise _mismatch("add", "a number", number)
    try:
        return wrap_like(current, total + more)
    except OverflowError:  # an integer that no float is near to
        raise ComponentError("the sum is too large for a float", reason="INVALID_OUTPUT", retryable=False) from None


def _append(current: Any, given: Any) -> Any:
    """The list with one more item, which is `given` as it is."""
    if type_of(current) == "messages" and isinstance(current.get("messages"), list):
        return {**current, "messages": [*current["messages"], given]}
    items = unwrap(current)
    if not isinstance(items, list):
        raise _mismatch("append", "a list", items)
    return wrap_like(current, [*items, given])


def _merge(current: Any, given: Any) -> Any:
    """The object with the keys of another, whose values win."""
    for value in (current, given):
        if type_of(value) not in (None, "json") or not isinstance(unwrap(value), dict):
            raise _mismatch("merge", "an object", value)
    return wrap_like(current, {**unwrap(current), **unwrap(given)})


_OPERATIONS: Mapping[str, Callable[[Any, Any], Any]] = {SET: _set, ADD: _add, "append": _append, "merge": _merge}
_INITIAL: Mapping[str, Any] = {SET: None, ADD: 0, "append": [], "merge": {}}

OPERATIONS = tuple(_OPERATIONS)


def _mismatch(operation: str, needed: str, value: Any) -> ComponentError:
    kind = "null" if value is None else type_of(value) or type(value).__name__
    return ComponentError(
        f"`{operation}` needs {needed}, not a value of type {kind}", reason="OPERATION_TYPE", retryable=False
    )
