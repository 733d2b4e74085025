"""Schedules fire when their time comes, and what became of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import acme
import flows
import pytest
from blobhub.v1 import api_key_pb2
from blobhub_server.blobtypes.capabilities import Invocation
from blobhub_server.clock import utc_now
from blobhub_server.errors import ContentLost
from blobhub_server.scheduler.engine.firings import Armed
from blobhub_server.scheduler.rules.firing import Firing, FiringKind, FiringStatus
from blobhub_server.scheduler.timetable import TZDATA_VERSION
from blobhub_server.workflow.definitions.finder import CompiledDefinition, Definitions
from calling import ask
from firing import Firer, engines
from schedules import DAILY, NIGHTLY, create, house
from served import Api, Served, connected, served
from waiting import until


@pytest.fixture
async def hub(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Firer, Api, Served]]:
    """A server with a scheduler without schedules, and a workflow for them."""
    with engines() as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await house(api, flows.code("set_data_output('result', inputs.given)"))
            yield found[0], api, server


async def fire(firer: Firer, count: int = 1) -> list[Firing]:
    """Have all schedules be due now; the firings once there are so many."""
    await firer.have_due(utc_now())
    return await firer.fired(count)


async def test_a_schedule_fires_at_its_time_and_the_end_of_the_execution_is_kept(hub) -> None:
    firer, api, _ = hub
    made = await create(api, spec=DAILY)
    (firing,) = await fire(firer)
    assert (firing.status, firing.kind, firing.reason) == (FiringStatus.SUCCESS, FiringKind.SCHEDULED, "")
    assert (firing.schedule_id, firing.schedule_alias) == (made.id, "report")
    assert (firing.schedule_digest, firing.tzdata) == (made.digest, TZDATA_VERSION)
    assert firing.nominal_time <= firing.fire_time
    await until(lambda: ended(firer))
    (firing,) = await firer.firings()
    assert (firing.execution_state, firing.sequence, firing.end_sequence) == ("completed", 1, 2)
    schedule = await firer.schedule()
    assert schedule.last_nominal_time == firing.nominal_time
    assert schedule.next_due_time > firing.nominal_time


async def ended(firer: Firer) -> bool:
    return all(firing.end_time is not None for firing in await firer.firings())


async def test_an_execution_that_ends_in_the_transaction_of_its_start_is_told_with_it(hub) -> None:
    firer, api, _ = hub
    await api.put(flows.steps(1))
    await create(api, spec=DAILY)
    (firing,) = await fire(firer)
    assert (firing.execution_state, firing.sequence, firing.end_sequence) == ("completed", 1, 2)


@pytest.mark.either_database
async def test_inputs_are_evaluated_over_the_firing(hub) -> None:
    firer, api, _ = hub
    template = {
        "alias": "given",
        "value_json": '{"type": "template", "template": "{{ schedule.alias }} {{ previous_time }}"}',
    }
    await create(api, spec=DAILY | {"input_data": [template]})
    (first,) = await fire(firer)
    _, second = await fire(firer, 2)
    await until(lambda: ended(firer))
    results = [(await ask(api, "GetExecution", execution=each.execution_id)).execution.result for each in (first, second)]
    assert results[0].string_value == "report None"
    assert results[1].string_value == f"report {first.nominal_time.isoformat().replace('+00:00', 'Z')}"


@pytest.mark.either_database
async def test_who_may_not_any_more_has_their_schedules_fire_with_an_access_error(hub) -> None:
    firer, api, server = hub
    made = await acme.key(api, "acme", role="ROLE_WRITE")
    async with connected(server.address, made.key) as theirs:
        await create(theirs, spec=DAILY)
    assert [each.status for each in await fire(firer)] == [FiringStatus.SUCCESS]
    await api.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=made.api_key.id))
    _, refused = await fire(firer, 2)
    assert (refused.status, refused.reason, refused.execution_id) == (FiringStatus.ACCESS_ERROR, "PERMISSION_DENIED", None)
    assert refused.actor_id == made.api_key.id


@pytest.mark.either_database
async def test_what_cannot_be_invoked_is_told_and_keeps_no_other_from_firing(hub) -> None:
    firer, api, _ = hub
    for alias, definition in (("bad", "absent"), ("good", "workflow"), ("worse", "absent")):
        target = DAILY["invocation_target"] | {"definition": definition}
        await create(api, alias, DAILY | {"invocation_target": target})
    found = {each.schedule_alias: each for each in await fire(firer, 3)}
    assert {alias: (each.status, each.reason) for alias, each in found.items()} == {
        "bad": (FiringStatus.INVOCATION_ERROR, "NOT_FOUND"),
        "good": (FiringStatus.SUCCESS, ""),
        "worse": (FiringStatus.INVOCATION_ERROR, "NOT_FOUND"),
    }


@pytest.mark.either_database
async def test_an_unforeseen_error_is_told_of_the_one_that_it_met(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    firer, api, _ = hub
    for alias in ("bad", "good"):
        await create(api, alias)
    invocation = Armed.invocation

    def fail(armed: Armed, firing: Firing) -> Invocation:
        if firing.schedule_alias == "bad":
            raise ZeroDivisionError
        return invocation(armed, firing)

    monkeypatch.setattr(Armed, "invocation", fail)
    found = {each.schedule_alias: (each.status, each.reason) for each in await fire(firer, 2)}
    assert found == {"bad": (FiringStatus.INVOCATION_ERROR, "INTERNAL"), "good": (FiringStatus.SUCCESS, "")}


@pytest.mark.either_database
async def test_a_definition_that_takes_long_to_compile_keeps_no_other_schedule_from_firing(
    hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    firer, api, _ = hub
    await api.put(flows.steps(7), alias="slow")
    for alias, definition in (("later", "slow"), ("sooner", "workflow")):
        await create(api, alias, DAILY | {"invocation_target": DAILY["invocation_target"] | {"definition": definition}})
    load, compiled = Definitions.load, asyncio.Event()

    async def delayed(self: Definitions, digest: str) -> CompiledDefinition:
        found = await load(self, digest)
        if len(found.runnable().components) > 7:
            await compiled.wait()
        return found

    monkeypatch.setattr(Definitions, "load", delayed)
    (first,) = await fire(firer)
    assert first.schedule_alias == "sooner"
    await acme.organization(api, "meanwhile")  # nobody who writes waits for it
    assert [each.id for each in await firer.firings()] == [first.id]
    compiled.set()
    _, second = await firer.fired(2)
    assert (second.schedule_alias, second.status) == ("later", FiringStatus.SUCCESS)


@pytest.mark.either_database
async def test_a_definition_that_was_lost_is_told(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    firer, api, _ = hub
    await create(api, spec=DAILY)

    async def lose(_self: Definitions, digest: str) -> CompiledDefinition:
        raise ContentLost(digest)

    monkeypatch.setattr(Definitions, "load", lose)
    (firing,) = await fire(firer)
    assert (firing.status, firing.reason) == (FiringStatus.INVOCATION_ERROR, "CONTENT_LOST")


async def test_a_deleted_scheduler_fires_nothing(hub) -> None:
    firer, api, _ = hub
    await create(api, spec=DAILY)
    await acme.delete_blob(api, NIGHTLY, cascade=True)
    await acme.blob(api, NIGHTLY, "blobhub.compute.scheduler")
    await create(api, spec=DAILY)
    (firing,) = await fire(firer)
    await asyncio.sleep(0.2)
    assert [each.id for each in await firer.firings()] == [firing.id]
