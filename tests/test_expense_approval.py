"""Expense approval: a decision about an expense comes from another service by the expense's id, in time, early, or not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from blobhub_client import get_value
from calling import ask
from runs import run
from scale import scaled
from served import Api
from several_servers import ended, together

DOCUMENT = (Path(__file__).parent / "workflows" / "expense_approval.json").read_text()


async def begin(api: Api, session_id: str, expense: dict[str, Any], seconds: float = 3600) -> str:
    inputs = [{"alias": "expense"}, {"alias": "seconds", "value": {"number_value": seconds}}]
    inputs[0]["value_json"] = json.dumps(expense)
    spec = {"definition": "workflow", "input_data": inputs}
    return (await ask(api, "StartExecution", session=session_id, spec=spec)).execution.id


async def decide(api: Api, expense_id: str, *, approved: bool) -> str:
    """The other service decides; the execution that hears of it."""
    value = json.dumps({"approved": approved, "by": "ann"})
    answer = await ask(api, "SendSignal", blob="acme/pipeline", name="decision", key=expense_id, value_json=value)
    return answer.execution_id


async def result(api: Api, execution_id: str) -> Any:
    await ended(api, execution_id)
    return get_value((await ask(api, "GetExecution", execution=execution_id)).execution, "result")


async def test_every_branch_of_an_expense(api: Api) -> None:
    session_id = await api.session(DOCUMENT)
    approved = await begin(api, session_id, {"id": "e-1", "amount": 12.5})
    rejected = await begin(api, session_id, {"id": "e-2", "amount": 900})
    assert await decide(api, "e-3", approved=True) == "", "before the expense is there"
    early = await begin(api, session_id, {"id": "e-3", "amount": 3})
    late = await begin(api, session_id, {"id": "e-4", "amount": 4}, seconds=0.01)
    await decide(api, "e-2", approved=False)
    await decide(api, "e-1", approved=True)
    assert await result(api, approved) == {"paid": 12.5, "by": "ann"}
    assert await result(api, rejected) == {"closed": "e-2", "by": "ann"}
    assert await result(api, early) == {"paid": 3, "by": "ann"}
    assert await result(api, late) == {"escalated": "e-4"}
    assert await decide(api, "e-4", approved=True) == "", "too late: it is kept, and nobody waits for it"


async def test_an_expense_without_an_id_fails_where_it_is_created(api: Api) -> None:
    failed = await run(api, await api.session(DOCUMENT), expense={"amount": 1})
    assert failed.failure.reason == "SCRIPT_ERROR"


async def test_many_expenses_at_once_hear_of_their_own_decision(tmp_path: Path, database_url: str) -> None:
    """The decisions come at the same time as the expenses, through any server; every third one says no."""
    total = scaled(200, least=20)
    async with together(tmp_path, database_url) as found:
        clients = [client for _, client in found]
        session_id = await clients[0].session(DOCUMENT)

        async def expense(number: int) -> Any:
            api = clients[number % len(clients)]
            return await result(api, await begin(api, session_id, {"id": f"e-{number}", "amount": number}))

        async def decision(number: int) -> None:
            await decide(clients[(number + 1) % len(clients)], f"e-{number}", approved=number % 3 != 0)

        expenses = [expense(number) for number in range(total)]
        results = await asyncio.gather(*expenses, *(decision(number) for number in range(total)))
        for number, told in enumerate(results[:total]):
            assert told == ({"paid": number, "by": "ann"} if number % 3 else {"closed": f"e-{number}", "by": "ann"})
