"""Every list of the contract, asked for in every way that the database goes about differently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

from blobhub.v1 import (
    api_key_pb2,
    audit_pb2,
    blob_pb2,
    credential_pb2,
    definition_pb2,
    execution_pb2,
    member_pb2,
    metadata_pb2,
    organization_pb2,
    revision_pb2,
    session_object_pb2,
    session_pb2,
    user_pb2,
)
from google.protobuf.message import Message
from hoard import EVENT_TYPES, METHODS, REFUSED, TYPES, Hoard, Row

ORDERS = [f"{column}{direction}" for column in ("create_time", "update_time", "alias") for direction in ("", " desc")]
VISIBILITIES = {"public": blob_pb2.VISIBILITY_PUBLIC, "private": blob_pb2.VISIBILITY_PRIVATE}


@dataclass(frozen=True)
class Listing:
    """A list: the method, the request, the rows it holds, in order, and the column that tells them from each other.

    `sorts` says that what it holds is found by the roles that the caller has, and sorted then: a page costs as much as there
    are roles, at the start and at the end.
    """

    rpc: str
    request: Callable[[Hoard], Message]
    rows: Callable[[Hoard], Iterable[Row]]
    key: str = "id"
    client: str = "administrator"
    sorts: bool = False
    note: str = ""

    def __str__(self) -> str:
        return f"{self.rpc.partition('.')[2]}({self.note})"


def ordered(rows: Iterable[Row], order_by: str) -> list[Row]:
    """Rows as an order has them."""
    name, _, direction = order_by.partition(" ")
    columns = {"create_time": ("id",), "update_time": ("update_time", "id"), "alias": ("alias",)}[name]
    return sorted(rows, key=itemgetter(*columns), reverse=bool(direction))


def kept(row: Row, filters: dict[str, str]) -> bool:
    """Whether a list with these filters has a blob or an organization."""
    same = all(row[name] == value for name, value in filters.items() if name != "alias_prefix")
    return same and row["alias"].startswith(filters.get("alias_prefix", ""))


def in_protos(filters: dict[str, str]) -> dict[str, Any]:
    """Filters as requests have them."""
    return filters | ({"visibility": VISIBILITIES[filters["visibility"]]} if "visibility" in filters else {})


def blobs(order_by: str, client: str = "administrator", **filters: str) -> Listing:
    """Blobs of the large organization. Callers who are not of it are shown what is public, and what is shared with them."""

    def request(hoard: Hoard) -> Message:
        return blob_pb2.ListBlobsRequest(organization=hoard.organization["id"], order_by=order_by, **in_protos(filters))

    def rows(hoard: Hoard) -> list[Row]:
        shared = {blob["id"] for blob in hoard.shared} if client == "guest" else set()
        everything = client == "administrator"
        shown = (row for row in hoard["blobs"] if everything or row["visibility"] == "public" or row["id"] in shared)
        return ordered((row for row in shown if kept(row, filters)), order_by)

    note = ", ".join([order_by, *filters.values(), client])
    return Listing(rpc="blobs.ListBlobs", request=request, rows=rows, client=client, note=note)


def organizations(order_by: str, client: str = "administrator", **filters: str) -> Listing:
    """Organizations: all, or those that the member has joined."""

    def request(_: Hoard) -> Message:
        return organization_pb2.ListOrganizationsRequest(order_by=order_by, **in_protos(filters))

    def rows(hoard: Hoard) -> list[Row]:
        shown = hoard.joined if client == "member" else hoard["organizations"]
        return ordered((row for row in shown if kept(row, filters)), order_by)

    note, sorts = ", ".join([order_by, *filters.values(), client]), client == "member" and "create_time" not in order_by
    return Listing(rpc="organizations.ListOrganizations", request=request, rows=rows, client=client, sorts=sorts, note=note)


def plain(
    rpc: str, request: Callable[[Hoard], Message], table: str, key: str = "id", by: str = "", note: str = "", **where: Any
) -> Listing:
    """The rows of a table that have some values, by the column that tells them apart, or another.

    A value may depend on the hoard.
    """

    def rows(hoard: Hoard) -> list[Row]:
        wanted = {name: value(hoard) if callable(value) else value for name, value in where.items()}
        held = (row for row in hoard[table] if all(row.get(name) == value for name, value in wanted.items()))
        return sorted(held, key=itemgetter(by or key))

    return Listing(rpc=rpc, request=request, rows=rows, key=key, note=note)


def organization_id(hoard: Hoard) -> str:
    return str(hoard.organization["id"])


def blob_id(hoard: Hoard) -> str:
    return str(hoard.blob["id"])


def revision_id(hoard: Hoard) -> str:
    return str(hoard.revision["id"])


def user_id(hoard: Hoard) -> str:
    return str(hoard["users"][0]["id"])


def session_id(hoard: Hoard) -> str:
    return str(hoard["sessions"][0]["id"])


def execution_id(hoard: Hoard) -> str:
    return str(hoard["executions"][0]["id"])


def blob_listings() -> list[Listing]:
    """By every filter in every order; by two, and as others see them, in some."""
    filters = ({}, {"type": TYPES[2]}, {"visibility": "private"}, {"alias_prefix": "c"})
    return [
        *(blobs(order_by, **chosen) for order_by in ORDERS for chosen in filters),
        *(blobs(order_by, type=TYPES[1], visibility="public") for order_by in ORDERS[::2]),
        *(blobs(order_by, client) for order_by in ORDERS[::2] for client in ("guest", "anonymous")),
    ]


def organization_listings() -> list[Listing]:
    """The same."""
    filters = ({}, {"visibility": "private"}, {"alias_prefix": "c"})
    return [
        *(organizations(order_by, **chosen) for order_by in ORDERS for chosen in filters),
        *(organizations(order_by, "member") for order_by in ORDERS),
    ]


def metadata_listings() -> list[Listing]:
    """Of a blob, of a revision; what holds for a revision, all of it and for some keys."""
    lists, resolves = metadata_pb2.ListMetadataRequest, metadata_pb2.ResolveMetadataRequest
    some = [f"k{i:03}" for i in range(0, 400, 2)]

    def of(hoard: Hoard, parent_id: str) -> dict[str, Row]:
        return {row["key"]: row for row in hoard["metadata_records"] if row["parent_id"] == parent_id}

    def resolved(hoard: Hoard) -> list[Row]:
        return sorted((of(hoard, blob_id(hoard)) | of(hoard, revision_id(hoard))).values(), key=itemgetter("key"))

    def among(hoard: Hoard) -> list[Row]:
        return [row for row in resolved(hoard) if row["key"] in some]

    lists_of = partial(plain, "metadata.ListMetadata", table="metadata_records", key="key")
    resolve = partial(Listing, "metadata.ResolveMetadata", key="key")
    return [
        lists_of(lambda h: lists(parent=blob_id(h)), note="of a blob", parent_id=blob_id),
        lists_of(lambda h: lists(parent=revision_id(h)), note="of a revision", parent_id=revision_id),
        lists_of(lambda h: lists(parent=blob_id(h), prefix="k"), note="by prefix", parent_id=blob_id),
        resolve(lambda h: resolves(revision=revision_id(h)), resolved),
        resolve(lambda h: resolves(revision=revision_id(h), keys=some), among, note="some keys"),
    ]


def access_listings() -> list[Listing]:
    """Users, members, keys and credentials."""
    members, keys, credentials = (
        partial(plain, "members.ListMembers", table="members", key="user_id"),
        partial(plain, "api_keys.ListApiKeys", table="api_keys"),
        partial(plain, "credentials.ListCredentials", table="credentials", key="alias"),
    )
    list_members, list_keys, list_credentials = (
        member_pb2.ListMembersRequest,
        api_key_pb2.ListApiKeysRequest,
        credential_pb2.ListCredentialsRequest,
    )

    def users(hoard: Hoard) -> list[Row]:
        return [row for row in hoard["users"] if row["name"].startswith("c")]

    return [
        Listing(
            rpc="users.ListUsers", request=lambda _: user_pb2.ListUsersRequest(), rows=lambda h: [*h["users"], *h.newer]
        ),
        Listing(
            rpc="users.ListUsers", request=lambda _: user_pb2.ListUsersRequest(name_prefix="c"), rows=users, note="by prefix"
        ),
        members(lambda h: list_members(parent=organization_id(h)), note="of an organization", resource_id=organization_id),
        members(lambda h: list_members(parent=blob_id(h)), note="of a blob", resource_id=blob_id),
        keys(
            lambda h: list_keys(parent=organization_id(h)),
            note="of an organization",
            organization_id=organization_id,
            blob_id=None,
        ),
        keys(lambda h: list_keys(parent=blob_id(h)), note="of a blob", blob_id=blob_id),
        keys(lambda h: list_keys(parent=user_id(h)), note="of a user", user_id=user_id),
        credentials(
            lambda h: list_credentials(parent=organization_id(h)), note="of an organization", parent_id=organization_id
        ),
        credentials(lambda h: list_credentials(parent=blob_id(h)), note="of a blob", parent_id=blob_id),
    ]


def audit_listings() -> list[Listing]:
    """Of an organization, of a blob, of the whole server; by user, by method, by outcome."""
    lists = audit_pb2.ListAuditEntriesRequest
    entries = partial(plain, "audit.ListAuditEntries", table="audit_entries", key="sequence")
    return [
        entries(lambda h: lists(parent=organization_id(h)), note="of an organization", organization_id=organization_id),
        entries(lambda h: lists(parent=blob_id(h)), note="of a blob", blob_id=blob_id),
        entries(lambda h: lists(parent=organization_id(h), user=user_id(h)), note="of a user", user_id=user_id),
        entries(lambda h: lists(parent=organization_id(h), method=METHODS[0]), note="of a method", method=METHODS[0]),
        entries(lambda h: lists(parent=blob_id(h), failures_only=True), note="refused", blob_id=blob_id, code=REFUSED),
        entries(lambda h: lists(parent="-", user=user_id(h)), note="of a user, everywhere", user_id=user_id),
        entries(lambda h: lists(parent="-", method=METHODS[1]), note="of a method, everywhere", method=METHODS[1]),
        entries(lambda _: lists(parent="-", failures_only=True), note="refused, everywhere", code=REFUSED),
    ]


def workflow_listings() -> list[Listing]:
    """Revisions and their definitions; sessions, and what is in one."""
    sessions, executions, objects = (
        partial(plain, "sessions.ListSessions", table="sessions", blob_id=blob_id),
        partial(plain, "executions.ListExecutions", table="executions", session_id=session_id),
        partial(plain, "session_objects.ListSessionObjects", table="session_objects", key="alias", session_id=session_id),
    )
    list_sessions, list_executions, list_objects = (
        session_pb2.ListSessionsRequest,
        execution_pb2.ListExecutionsRequest,
        session_object_pb2.ListSessionObjectsRequest,
    )
    closed, stopped = session_pb2.SESSION_STATE_CLOSED, execution_pb2.EXECUTION_STATE_STOPPED
    return [
        plain(
            "revisions.ListRevisions",
            lambda h: revision_pb2.ListRevisionsRequest(blob=blob_id(h)),
            "revisions",
            blob_id=blob_id,
        ),
        plain(
            "definitions.ListDefinitions",
            lambda h: definition_pb2.ListDefinitionsRequest(revision=revision_id(h)),
            "entries",
            by="name",
            revision_id=revision_id,
        ),
        sessions(lambda h: list_sessions(blob=blob_id(h))),
        sessions(lambda h: list_sessions(blob=blob_id(h), state=closed), note="closed", state="closed"),
        sessions(lambda h: list_sessions(blob=blob_id(h), alias="daily"), note="of an alias", alias="daily"),
        executions(lambda h: list_executions(session=session_id(h))),
        executions(lambda h: list_executions(session=session_id(h), state=stopped), note="stopped", state="stopped"),
        objects(lambda h: list_objects(session=session_id(h))),
        objects(lambda h: list_objects(session=session_id(h), prefix=""), note="by prefix"),
    ]


def event_listings() -> list[Listing]:
    """Events of a session and of one execution, of all types and of one, in either order."""
    lists = session_pb2.ListEventsRequest
    type_ = EVENT_TYPES[0]

    def listing(note: str, *, execution: bool = False, types: Sequence[str] = (), order_by: str = "") -> Listing:
        def request(hoard: Hoard) -> Message:
            chosen = {"execution": execution_id(hoard)} if execution else {}
            return lists(session=session_id(hoard), types=types, order_by=order_by, **chosen)

        def rows(hoard: Hoard) -> list[Row]:
            kept = [row for row in hoard["events"] if row["execution_id"] or not execution]
            kept = [row for row in kept if not types or row["type"] in types]
            return kept[::-1] if order_by else kept

        return Listing(rpc="sessions.ListEvents", request=request, rows=rows, key="session_sequence", note=note)

    newest_first = partial(listing, order_by="session_sequence desc")
    return [
        listing("of a session"),
        listing("of a session, of a type", types=[type_]),
        listing("of an execution", execution=True),
        listing("of an execution, of a type", execution=True, types=[type_]),
        newest_first("newest first, of a session"),
        newest_first("newest first, of a session, of a type", types=[type_]),
        newest_first("newest first, of an execution", execution=True),
        newest_first("newest first, of an execution, of a type", execution=True, types=[type_]),
    ]


LISTINGS = [
    *blob_listings(),
    *organization_listings(),
    *metadata_listings(),
    *access_listings(),
    *audit_listings(),
    *workflow_listings(),
    *event_listings(),
]
