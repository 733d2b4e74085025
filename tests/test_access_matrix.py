"""Every RPC, for every field that names a resource, as every kind of caller: as the access options say, and no other way."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest
from blobhub.v1 import audit_pb2
from blobhub_client import page
from calling import METHODS
from figures import Figure
from google.protobuf import descriptor, descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2
from matrix import (
    ALLOWED,
    DENIED,
    NOT_FOUND,
    UNAUTHENTICATED,
    absent_like,
    answer,
    at_the_gate,
    beyond,
    cells,
    columns,
    expected,
    fingerprint,
    hidden,
)
from methods import Method
from plans import asked
from scale import scaled
from served import Api, connected, served
from world import NOT_AN_ID, Row, World, settings

INSIDE = {
    "CreateMember.user": "no role is held on a user here; the parent is what is checked",
    "GetMember.user": "named inside the parent that is checked",
    "UpdateMember.user": "named inside the parent that is checked",
    "DeleteMember.user": "named inside the parent that is checked",
    "UpdateUser.user": "for administrators of the server, who may see everybody",
    "CreateRevision.base_revision": "a revision of the blob that is checked",
    "ReassignSchedule.user": "an id that is looked up among those who may write to the target, and told as nothing else",
    "ReassignSchedule.api_key": "the same",
    "SignNote.credential": "an alias in the blob that is checked",
    "ListExecutions.session": "a filter among the executions of the blob that is checked",
    "ListSessions.revision": "a filter among the sessions of the blob that is checked",
    "ListAuditEntries.user": "a filter, for those who may see every entry of the parent",
    "GetDefinitionGraph.execution": "of the definition, and for callers with a role on the blob alone",
    "ListEvents.execution": "a filter inside the session that is checked; one of another session is like one that is absent",
    "GetCaller.parent": "asks for the caller's own role; none, and no such thing, read the same",
}
"""Request fields that name something and are not checked by themselves, and why."""

NAMES = {"organization", "blob", "revision", "base_revision", "session", "execution", "parent", "user", "api_key"} | {
    "credential",
}
"""What request fields that name a resource are called."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def world(request, tmp_path_factory) -> AsyncIterator[World]:
    """One server and one world for the whole matrix, on each kind of database."""
    url = await request.getfixturevalue("fresh_postgres")() if request.param == "postgresql" else None
    folder = tmp_path_factory.mktemp("matrix")
    async with (
        served(folder, url, **settings(folder)) as server,
        connected(server.address, server.admin_key) as api,
    ):
        made = World(server, api)
        await made.build()
        yield made


@pytest.mark.timeout(3600)
async def test_cells_are_as_the_access_options_say(world: World, figure: Figure) -> None:
    """And what is refused changes nothing, and is in the audit log, but for keys that cannot be any."""
    rows = world.rows(METHODS.values())
    before, recorded = await fingerprint(world.server), await refusals(world)
    wrong: list[str] = []
    tried = columns(rows, world.kinds)
    for kind, own in tried:
        wrong += [line async for line in cells(world, own, kind)]
        assert await fingerprint(world.server) == before, f"something changed when {kind.name} called"
    assert not wrong, "\n".join(wrong)
    outcomes = [(row, kind, expected(row, kind)) for kind, own in tried for row in own]
    counts = Counter(outcome for _, _, outcome in outcomes)
    assert min(counts[ALLOWED], counts[DENIED], counts[UNAUTHENTICATED]) > scaled(500, least=50), counts
    assert counts[NOT_FOUND] > scaled(100, least=10), counts
    entries = Counter(outcome for _, kind, outcome in outcomes if kind.name != "malformed key")
    entries += Counter(outcome for row, kind, outcome in outcomes if kind.authentic and hidden(row, kind))
    found = await refusals(world) - recorded
    for code in (UNAUTHENTICATED, DENIED, NOT_FOUND):
        assert found[code] == entries[code], code
    size = f"{len(METHODS)} methods, {len(rows)} rows, {len(world.kinds)} kinds of caller"
    figure(f"{size}: {len(outcomes)} cells, {dict(counts)}")


async def test_a_hidden_resource_takes_the_same_statements_as_an_absent_one(world: World, monkeypatch) -> None:
    """So the time that a refusal takes tells nothing, either."""
    monkeypatch.setattr("blobhub_server.platform.admission.authentication.CACHE_SECONDS", 600.0)
    compared = 0
    for kind in world.kinds:
        if not kind.authentic or kind.name not in ("anonymous", "stranger", "reader of the blob", "key of another blob"):
            continue
        rows = {(row.rule.resource, row.subject.value): row for row in world.rows(METHODS.values()) if hidden(row, kind)}
        async with connected(world.server.address, kind.key or None) as api:
            for row in rows.values():
                value = row.subject.value
                with at_the_gate():
                    await answer(api, row.method, world.request(row, value))  # The key is in the cache from here on.
                    work = [await statements(api, row, world, asked_for) for asked_for in (value, absent_like(value))]
                assert work[0] == work[1], f"{kind.name}: {row}"
                compared += 1
    assert compared > 60


OF_THE_RUNTIME = (
    "executions.owner",
    "SELECT executions.id \nFROM executions",
    "servers.",
    "UPDATE servers",
    "INTO servers",
    "FROM deletions",
    "operations.server_id",
    "schedules.next_due_time <=",
    "SELECT schedules.next_due_time \nFROM",
    "SELECT schedules.id \nFROM schedules",
)
"""What queries of the runtime, the collector, the engine of schedules and the runner of operations have in them, and no
call's."""


async def statements(api: Api, row: Row, world: World, value: str) -> Counter[str]:
    """The queries of a call that is refused, without those of what looks for work now and then."""
    with asked() as queries:
        assert await answer(api, row.method, world.request(row, value)) is not None
    return Counter(query.sql for query in queries if not any(words in query.sql for words in OF_THE_RUNTIME))


@pytest.mark.parametrize("kind_name", ["anonymous", "stranger", "reader of the organization", "administrator"])
async def test_what_has_no_form_is_told_so_before_anything_is_looked_up(world: World, kind_name: str) -> None:
    """Whoever calls, and whatever there is."""
    kind = next(kind for kind in world.kinds if kind.name == kind_name)
    async with connected(world.server.address, kind.key or None) as api:
        for row in world.rows(METHODS.values()):
            if row.method.changes:
                request = GetMessageClass(row.method.input).FromString(
                    world.request(row, row.subject.value if row.subject else "")
                )
                request.request_id = NOT_AN_ID
                error = await answer(api, row.method, request.SerializeToString())
                assert error.code().name == "INVALID_ARGUMENT", (row, error)
            if row.rule is not None:
                error = await answer(api, row.method, world.request(row, "no reference!"))
                assert error.code().name == "INVALID_ARGUMENT", (row, error)


async def test_what_rules_decide_beyond_the_options(world: World) -> None:
    assert [wrong async for wrong in beyond(world)] == []


async def refusals(world: World) -> Counter[str]:
    """How many refusals the audit log has, by code."""
    request = audit_pb2.ListAuditEntriesRequest(parent="-", failures_only=True, page_size=1000)
    return Counter([entry.code async for entry in page(world.api.audit.ListAuditEntries, request)])


OTHERS = ("grpc.", "inference.")
"""Packages of others: gRPC's own, which need no admission, and the Open Inference Protocol, whose tests are its own."""


async def test_every_method_that_is_served_has_a_row(world: World) -> None:
    """Whatever service is added, here or by a plug-in, is in the matrix or fails here."""
    paths = {row.method.path for row in world.rows(METHODS.values())}
    async with connected(world.server.address, None) as api:
        call = api.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        services = [item.name for item in (await call.read()).list_services_response.service]
        call.cancel()
    pool = descriptor_pool.Default()
    served_paths = {
        f"/{name}/{method.name}"
        for name in services
        if not name.startswith(OTHERS)
        for method in pool.FindServiceByName(name).methods
    }
    assert served_paths == paths


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.path)
def test_every_field_that_names_a_resource_is_checked(method: Method) -> None:
    checked = {rule.field for rule in (method.access, *method.access.also)}
    for field in method.input.fields:
        if field.name in NAMES and field.type == descriptor.FieldDescriptor.TYPE_STRING:
            name = f"{method.name}.{field.name}"
            assert field.name in checked or name in INSIDE, f"{name} is neither checked nor said to be inside"


async def test_a_row_for_a_method_that_is_not_checked_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix bites: with a check taken out it says which cells are wrong."""
    rows = [row for row in world.rows(METHODS.values()) if row.method.name == "DeleteBlob"]
    stranger = next(kind for kind in world.kinds if kind.name == "stranger")
    assert [line async for line in cells(world, rows, stranger)] == []
    monkeypatch.setattr("blobhub_server.platform.rules.access.is_hidden", lambda *_, **__: False)
    monkeypatch.setattr("blobhub_server.platform.rules.access.require_role", lambda *_, **__: None)
    assert len([line async for line in cells(world, rows, stranger)]) == len(rows)
