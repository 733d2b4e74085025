"""Every list of the contract, asked for in every way that the database goes about differently."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    member_pb2,
    metadata_pb2,
    organization_pb2,
    revision_pb2,
    user_pb2,
)
from google.protobuf.message import Message
from hoard import METHODS, REFUSED, TYPES, Hoard, Row

ORDERS = [f"{column}{direction}" for column in ("create_time", "update_time", "alias") for direction in ("", " desc")]
VISIBILITIES = {"public": blob_pb2.VISIBILITY_PUBLIC, "private": blob_pb2.VISIBILITY_PRIVATE}


@dataclass(frozen=True)
class Listing:
    """A list: the method, the request, the rows it holds, in order, and the column that tells them from each other.

    `sorts` says that what it holds is found by the roles that the caller has, and sorted then: a page costs as much as there
    are roles, at the start and at the end. `by_state` says that it is read state by state: where statistics say that hardly
    anything is in a state, PostgreSQL may take another index and sort that.
    """

    rpc: str
    request: Callable[[Hoard], Message]
    rows: Callable[[Hoard], Iterable[Row]]
    key: str = "id"
    client: str = "administrator"
    sorts: bool = False
    by_state: bool = False
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
    rpc: str,
    request: Callable[[Hoard], Message],
    table: str,
    key: str = "id",
    by: str = "",
    note: str = "",
    desc: bool = False,
    only: Callable[[Row], bool] = lambda _: True,
    **where: Any,
) -> Listing:
    """The rows of a table that have some values, by the column that tells them apart, or another.

    A value may depend on the hoard.
    """

    def rows(hoard: Hoard) -> list[Row]:
        wanted = {name: value(hoard) if callable(value) else value for name, value in where.items()}
        held = (row for row in hoard[table] if only(row) and all(row.get(name) == value for name, value in wanted.items()))
        return sorted(held, key=itemgetter(by or key), reverse=desc)

    return Listing(rpc=rpc, request=request, rows=rows, key=key, note=note)


def begins_with_c(row: Row) -> bool:
    return str(row["alias"]).startswith("c")


def organization_id(hoard: Hoard) -> str:
    return str(hoard.organization["id"])


def blob_id(hoard: Hoard) -> str:
    return str(hoard.blob["id"])


def revision_id(hoard: Hoard) -> str:
    return str(hoard.revision["id"])


def user_id(hoard: Hoard) -> str:
    return str(hoard["users"][0]["id"])


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
        lists_of(lambda h: lists(parent=blob_id(h), key_prefix="k"), note="by prefix", parent_id=blob_id),
        lists_of(lambda h: lists(parent=blob_id(h), order_by="key desc"), note="desc", parent_id=blob_id, desc=True),
        resolve(lambda h: resolves(revision=revision_id(h)), resolved),
        resolve(lambda h: resolves(revision=revision_id(h), keys=some), among, note="some keys"),
    ]


def user_listings() -> list[Listing]:
    """Users and members."""
    members = partial(plain, "members.ListMembers", table="members", key="user_id")
    list_members = member_pb2.ListMembersRequest

    def users(hoard: Hoard) -> list[Row]:
        return sorted((row for row in hoard["users"] if row["name"].startswith("c")), key=itemgetter("name"))

    return [
        Listing(
            rpc="users.ListUsers", request=lambda _: user_pb2.ListUsersRequest(), rows=lambda h: [*h["users"], *h.newer]
        ),
        Listing(
            rpc="users.ListUsers", request=lambda _: user_pb2.ListUsersRequest(name_prefix="c"), rows=users, note="by prefix"
        ),
        Listing(
            rpc="users.ListUsers",
            request=lambda _: user_pb2.ListUsersRequest(name_prefix="c", order_by="create_time desc"),
            rows=lambda h: sorted(users(h), key=itemgetter("id"), reverse=True),
            note="by prefix, create_time desc",
        ),
        members(lambda h: list_members(parent=organization_id(h)), note="of an organization", resource_id=organization_id),
        members(lambda h: list_members(parent=blob_id(h)), note="of a blob", resource_id=blob_id),
        members(
            lambda h: list_members(parent=organization_id(h), order_by="user desc"),
            note="desc",
            desc=True,
            resource_id=organization_id,
        ),
        members(
            lambda h: list_members(parent=organization_id(h), role=2), note="by role", resource_id=organization_id, role=2
        ),
    ]


def access_listings() -> list[Listing]:
    """Keys and credentials."""
    keys, credentials = (
        partial(plain, "api_keys.ListApiKeys", table="api_keys"),
        partial(plain, "credentials.ListCredentials", table="credentials", key="alias"),
    )
    list_keys, list_credentials = api_key_pb2.ListApiKeysRequest, credential_pb2.ListCredentialsRequest
    return [
        keys(
            lambda h: list_keys(parent=organization_id(h)),
            note="of an organization",
            organization_id=organization_id,
            blob_id=None,
        ),
        keys(lambda h: list_keys(parent=blob_id(h)), note="of a blob", blob_id=blob_id),
        keys(lambda h: list_keys(parent=user_id(h)), note="of a user", user_id=user_id),
        keys(lambda h: list_keys(parent=user_id(h), order_by="create_time desc"), note="desc", desc=True, user_id=user_id),
        keys(lambda h: list_keys(parent=blob_id(h), valid_only=True), note="valid", blob_id=blob_id, revoke_time=None),
        credentials(
            lambda h: list_credentials(parent=organization_id(h)), note="of an organization", parent_id=organization_id
        ),
        credentials(lambda h: list_credentials(parent=blob_id(h)), note="of a blob", parent_id=blob_id),
        credentials(
            lambda h: list_credentials(parent=blob_id(h), type="http.basic", order_by="alias desc"),
            note="by type, desc",
            desc=True,
            parent_id=blob_id,
            type="http.basic",
        ),
        credentials(
            lambda h: list_credentials(parent=blob_id(h), alias_prefix="c"),
            note="by prefix",
            only=begins_with_c,
            parent_id=blob_id,
        ),
    ]


def audit_listings() -> list[Listing]:
    """Of an organization, of a blob, of the whole server; by user, by method, by outcome."""
    lists = audit_pb2.ListAuditEntriesRequest
    entries = partial(plain, "audit.ListAuditEntries", table="audit_entries", key="sequence")
    return [
        entries(lambda h: lists(parent=organization_id(h)), note="of an organization", organization_id=organization_id),
        entries(lambda h: lists(parent=blob_id(h)), note="of a blob", blob_id=blob_id),
        entries(
            lambda h: lists(parent=organization_id(h), order_by="create_time desc"),
            note="desc",
            desc=True,
            organization_id=organization_id,
        ),
        entries(
            lambda _: lists(parent="-", method=METHODS[1], order_by="create_time desc"),
            note="of a method, everywhere, desc",
            desc=True,
            method=METHODS[1],
        ),
        entries(
            lambda h: lists(parent=blob_id(h), failures_only=True, order_by="create_time desc"),
            note="refused, desc",
            desc=True,
            blob_id=blob_id,
            code=REFUSED,
        ),
        entries(lambda h: lists(parent=organization_id(h), user=user_id(h)), note="of a user", user_id=user_id),
        entries(lambda h: lists(parent=organization_id(h), method=METHODS[0]), note="of a method", method=METHODS[0]),
        entries(lambda h: lists(parent=blob_id(h), failures_only=True), note="refused", blob_id=blob_id, code=REFUSED),
        entries(lambda h: lists(parent="-", user=user_id(h)), note="of a user, everywhere", user_id=user_id),
        entries(lambda h: lists(parent="-", method=METHODS[1]), note="of a method, everywhere", method=METHODS[1]),
        entries(lambda _: lists(parent="-", failures_only=True), note="refused, everywhere", code=REFUSED),
    ]


def revision_listings() -> list[Listing]:
    """Revisions and their definitions."""
    revisions, definitions = (
        partial(plain, "revisions.ListRevisions", table="revisions", blob_id=blob_id),
        partial(plain, "definitions.ListDefinitions", table="entries", by="name", revision_id=revision_id),
    )
    list_revisions, list_definitions = revision_pb2.ListRevisionsRequest, definition_pb2.ListDefinitionsRequest
    draft = revision_pb2.REVISION_PHASE_DRAFT
    return [
        revisions(lambda h: list_revisions(blob=blob_id(h))),
        revisions(lambda h: list_revisions(blob=blob_id(h), order_by="create_time desc"), note="desc", desc=True),
        revisions(lambda h: list_revisions(blob=blob_id(h), phase=draft), note="drafts", phase="draft"),
        definitions(lambda h: list_definitions(revision=revision_id(h))),
        definitions(
            lambda h: list_definitions(revision=revision_id(h), alias_prefix="c"),
            note="by prefix",
            only=lambda row: row["name"].startswith("c"),
        ),
        definitions(lambda h: list_definitions(revision=revision_id(h), order_by="alias desc"), note="desc", desc=True),
    ]


PLATFORM_LISTINGS = [
    *blob_listings(),
    *organization_listings(),
    *metadata_listings(),
    *user_listings(),
    *access_listings(),
    *audit_listings(),
    *revision_listings(),
]
