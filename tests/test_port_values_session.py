"""Session values that expressions read: many executions at once lose nothing of them."""

from __future__ import annotations

import asyncio
from typing import Any

import flows
import pytest
from blobhub_client import get_value
from calling import ask
from port_values import ending, expression, giving, shared
from runs import run
from scale import scaled
from served import Api

pytestmark = pytest.mark.either_database

SCRIPT = flows.component("count", "logic.code", code="set_data_output('result', inputs.n)", n=expression("session.n + 1"))
IN_PLACE = giving("count", "n", n=expression("session.n + 1"))
BY_REFERENCE = giving("count", "default(session.n, 0) + 1")


@pytest.mark.parametrize("step", [SCRIPT, IN_PLACE, BY_REFERENCE], ids=["script", "port", "expression"])
async def test_a_counter_that_many_executions_read_by_expressions_counts_all_of_them(api: Api, step: dict[str, Any]) -> None:
    many = scaled(100, least=6)
    write = [flows.data("count", "result", "shared-n", "value")]
    document = ending(expression("session.n"), shared("n", 0), steps=[step], connections=write)
    session = await api.session(document)
    ended = await asyncio.gather(*(run(api, session) for _ in range(many)))
    assert [execution.failure.reason for execution in ended] == [""] * many
    counted = await ask(api, "GetSessionObject", session=session, alias="n")
    assert get_value(counted.session_object) == many
    assert max(get_value(execution, "result") for execution in ended) == many
