"""The sessions that firings open: what is for one firing is closed with its end, so schedules go on for ever."""

from __future__ import annotations

import flows
from blobhub.v1 import firing_pb2 as pb
from blobhub.v1 import session_pb2
from calling import ask
from schedules import DAILY, TARGET, backfill, create, house, trigger
from served import Api
from waiting import until

OWN = DAILY | {"cron_expression": "0 * * * *", "timezone": "UTC", "invocation_target": TARGET | {"session": ""}}
"""A schedule each of whose firings has a session of its own."""
OPEN, CLOSED = session_pb2.SESSION_STATE_OPEN, session_pb2.SESSION_STATE_CLOSED


async def state(api: Api, session_id: str) -> session_pb2.SessionState.ValueType:
    return (await ask(api, "GetSession", session=session_id)).session.state


async def closed(api: Api, session_id: str) -> None:
    async def is_closed() -> bool:
        return await state(api, session_id) == CLOSED

    await until(is_closed)


async def at_most_open(api: Api, count: int) -> None:
    await ask(api, "UpdateLimit", parent="acme/pipeline", name="workflow.sessions_per_blob", value=count)


async def test_a_schedule_fires_on_however_few_sessions_may_be_open(api: Api) -> None:
    await house(api, flows.scripts(1))
    await create(api, spec=OWN)
    await at_most_open(api, 2)  # One of them is that of the house.
    sessions = []
    for _ in range(5):
        firing = await trigger(api)
        assert firing.status == pb.FIRING_STATUS_SUCCESS, firing.message
        await closed(api, firing.session_id)
        sessions.append(firing.session_id)
    assert len(set(sessions)) == 5


async def test_a_session_is_closed_with_an_execution_that_ends_in_the_transaction_of_its_start(api: Api) -> None:
    await house(api, flows.steps(1))
    await create(api, spec=OWN)
    firing = await trigger(api)
    assert await state(api, firing.session_id) == CLOSED
    watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=firing.session_id))
    types = [event.WhichOneof("payload") for batch in [batch async for batch in watch] for event in batch.events]
    assert types[-2:] == ["flow_exited", "session_closed"]
    assert len(await backfill(api, "2024-03-01T00:00:00Z", "2024-03-03T00:00:00Z")) == 49


async def test_a_session_is_open_until_its_last_execution_has_ended(api: Api) -> None:
    await house(api, flows.delay(3600))
    await api.put(flows.steps(1), alias="quick")
    await create(api, spec=OWN)
    firing = await trigger(api)
    await ask(api, "RunExecution", session=firing.session_id, spec={"definition": "quick"})
    assert await state(api, firing.session_id) == OPEN
    await ask(api, "PutSessionObject", session=firing.session_id, alias="note", value={"string_value": "kept"})
    await ask(api, "StopExecution", execution=firing.execution_id)
    await closed(api, firing.session_id)


async def test_a_session_that_a_schedule_names_stays_open(api: Api) -> None:
    await house(api, flows.steps(1))
    await create(api)
    first, second = await trigger(api), await trigger(api)
    assert first.session_id == second.session_id
    assert await state(api, first.session_id) == OPEN
