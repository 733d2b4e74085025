"""An organization has so many open tasks and no more; the step of one too many fails, and may be tried again."""

from __future__ import annotations

import pytest
import tasks
from blobhub.v1 import execution_pb2
from calling import ask
from served import Api
from waiting import until

pytestmark = pytest.mark.either_database

COMPLETED = execution_pb2.EXECUTION_STATE_COMPLETED


async def held(api: Api) -> int:
    (limit,) = [each for each in (await ask(api, "GetLimits", parent="acme")).limits if each.name == "workflow.open_tasks"]
    return limit.held


async def test_a_step_whose_task_is_one_too_many_fails_or_waits_for_room(api: Api) -> None:
    session = await api.session(tasks.calls())
    retry = {"maximum_attempts": 100, "initial_interval": "0.01s", "backoff_coefficient": 1}
    await api.put(tasks.calls(policy={"retry": retry}), alias="patient")
    await ask(api, "UpdateLimit", parent="acme", name="workflow.open_tasks", value=2)
    begun = [await tasks.start(api, session, number) for number in range(2)]
    assert await held(api) == 2
    refused = await tasks.ended(api, (await tasks.start(api, session)).id)
    assert (refused.failure.reason, await held(api)) == ("TASK_LIMIT", 2)
    patient = await tasks.start(api, session, "patient", definition="patient")
    async with tasks.leasing(api) as leases:
        for _ in range(3):
            await tasks.complete(api, (await leases.next()).lease)
    for each in (*begun, patient):
        assert (await tasks.ended(api, each.id)).state == COMPLETED
    await until(lambda: none_held(api))


async def none_held(api: Api) -> bool:
    return await held(api) == 0
