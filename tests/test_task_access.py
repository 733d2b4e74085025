"""A worker's key: it does the tasks of the queues that it names, and reads nothing else."""

from __future__ import annotations

import grpc
import pytest
import tasks
from blobhub.v1 import access_pb2, api_key_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from calling import ask
from served import Api, Served, connected
from waiting import within_deadline

pytestmark = pytest.mark.either_database

DENIED = grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"


async def worker_key(api: Api, *queues: str) -> api_key_pb2.CreateApiKeyResponse:
    return await ask(api, "CreateApiKey", parent="acme", role=access_pb2.ROLE_WORKER, queue_names=queues)


async def test_a_workers_key_does_the_tasks_of_its_queues_and_reads_nothing_else(server: Served, api: Api) -> None:
    session = await api.session(tasks.calls())
    await api.put(tasks.calls("secret"), alias="secret")
    made = await worker_key(api, "thumbnail", "resize")
    assert (made.api_key.role, list(made.api_key.queue_names)) == (access_pb2.ROLE_WORKER, ["resize", "thumbnail"])
    begun = [await tasks.start(api, session, "for its eyes", name) for name in ("workflow", "secret")]
    async with connected(server.address, made.key) as worker:
        caller = await ask(worker, "GetCaller")
        assert (caller.caller.role, list(caller.caller.queue_names)) == (access_pb2.ROLE_WORKER, ["resize", "thumbnail"])
        assert not caller.roles
        async with tasks.leasing(worker) as leases:
            leased = await leases.next()
            assert leased.input.string_value == "for its eyes"
            assert not (await tasks.extend(worker, leased.lease)).stop
            assert (await tasks.queue(worker)).leased_tasks == 1
            await tasks.give_back(worker, leased.lease)
            await tasks.complete(worker, (await leases.next()).lease, "done")
        assert [task.worker for task in await tasks.listed(worker)] == ["ann"]
        assert (await tasks.ended(api, begun[0].id)).result.string_value == "done"
        async with tasks.leasing(api, "acme/secret") as leases:
            foreign = (await leases.next()).lease
        for call in (
            tasks.queue(worker, "acme/secret"),
            tasks.listed(worker, "acme/secret"),
            tasks.complete(worker, foreign),
            tasks.fail(worker, foreign),
            ask(worker, "LeaseTasks", queue="acme/secret", maximum_tasks=1),
            ask(worker, "GetBlob", blob="acme/pipeline"),
            ask(worker, "GetOrganization", organization="acme"),
            ask(worker, "GetExecution", execution=begun[0].id),
            ask(worker, "StartExecution", session=session, spec={"definition": "workflow"}),
            ask(worker, "CreateApiKey", parent="acme", role=access_pb2.ROLE_WORKER, queue_names=["resize"]),
        ):
            await expect_refusal(call, *DENIED)


async def test_a_lease_that_names_another_queue_than_its_tasks_is_refused(server: Served, api: Api) -> None:
    session = await api.session(tasks.calls("secret"))
    await tasks.start(api, session)
    made = await worker_key(api, "resize")
    async with tasks.leasing(api, "acme/secret") as leases, connected(server.address, made.key) as worker:
        lease = (await leases.next()).lease
        forged = lease.replace(".secret.", ".resize.")
        for call in (tasks.complete, tasks.fail, tasks.extend, tasks.give_back):
            refused = await expect_refusal(call(worker, forged), grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")
            assert "gone" in (refused.details() or ""), "nothing is told of the task"
        assert not (await tasks.extend(api, lease)).stop


async def test_a_key_that_is_rotated_keeps_its_queues_and_one_that_is_revoked_ends_its_stream(
    server: Served, api: Api
) -> None:
    session = await api.session(tasks.calls())
    made = await worker_key(api, "resize")
    rotated = await ask(api, "RotateApiKey", api_key=made.api_key.id)
    assert list(rotated.api_key.queue_names) == ["resize"]
    async with connected(server.address, rotated.key) as worker, tasks.leasing(worker) as leases:
        await tasks.start(api, session)
        lease = (await leases.next()).lease
        await ask(api, "RevokeApiKey", api_key=rotated.api_key.id)
        error = await within_deadline(code_of(leases.call))
        assert error is grpc.StatusCode.UNAUTHENTICATED
    await tasks.complete(api, lease)


async def code_of(call: grpc.aio.UnaryStreamCall) -> grpc.StatusCode:
    """The status that a stream ends with."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
