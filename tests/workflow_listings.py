"""The lists of workflows, beside those of `listings`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import itemgetter

from blobhub.v1 import execution_pb2, session_object_pb2, session_pb2
from google.protobuf.message import Message
from hoard import EVENT_TYPES, MANY, Hoard, Row
from listings import Listing, begins_with_c, blob_id, plain, revision_id


def session_id(hoard: Hoard) -> str:
    return str(hoard["sessions"][0]["id"])


def execution_id(hoard: Hoard) -> str:
    return str(hoard["executions"][0]["id"])


def session_listings() -> list[Listing]:
    """Sessions, and the objects in one."""
    sessions, objects = (
        partial(plain, "sessions.ListSessions", table="sessions", blob_id=blob_id),
        partial(plain, "session_objects.ListSessionObjects", table="session_objects", key="alias", session_id=session_id),
    )
    list_sessions, list_objects = session_pb2.ListSessionsRequest, session_object_pb2.ListSessionObjectsRequest
    closed = session_pb2.SESSION_STATE_CLOSED
    return [
        sessions(lambda h: list_sessions(blob=blob_id(h))),
        sessions(lambda h: list_sessions(blob=blob_id(h), order_by="create_time desc"), note="desc", desc=True),
        sessions(lambda h: list_sessions(blob=blob_id(h), state=closed), note="closed", state="closed"),
        sessions(lambda h: list_sessions(blob=blob_id(h), alias="daily"), note="of an alias", alias="daily"),
        sessions(lambda h: list_sessions(blob=blob_id(h), revision=revision_id(h)), note="of a revision"),
        objects(lambda h: list_objects(session=session_id(h))),
        objects(lambda h: list_objects(session=session_id(h), order_by="alias desc"), note="desc", desc=True),
        objects(lambda h: list_objects(session=session_id(h), alias_prefix="c"), note="by prefix", only=begins_with_c),
    ]


def executions(order_by: str = "", *, session: bool = False, late: bool = False, **filters: str) -> Listing:
    """Executions of the blob, or of a session; with `late` those that were made in the later half."""

    def middle(hoard: Hoard) -> int:
        return int(hoard["executions"][MANY // 2]["create_time"])

    def request(hoard: Hoard) -> Message:
        made = execution_pb2.ListExecutionsRequest(blob=blob_id(hoard), order_by=order_by)
        made.session = session_id(hoard) if session else ""
        made.definition_alias = filters.get("definition_alias", "")
        made.state = execution_pb2.ExecutionState.Value(f"EXECUTION_STATE_{filters.get('state', 'unspecified').upper()}")
        if late:
            made.created_after.FromMicroseconds(middle(hoard))
        return made

    def rows(hoard: Hoard) -> list[Row]:
        found = [row for row in hoard["executions"] if all(row[name] == value for name, value in filters.items())]
        found = [row for row in found if not late or row["create_time"] > middle(hoard)]
        return sorted(found, key=itemgetter("create_time", "id"), reverse=order_by != "create_time")

    note = ", ".join([order_by or "newest first", *filters.values(), *["session"] * session, *["late"] * late])
    by_state = not session and "state" not in filters
    return Listing(rpc="executions.ListExecutions", request=request, rows=rows, by_state=by_state, note=note)


def execution_listings() -> list[Listing]:
    """By every filter, and by several."""
    stopped, workflow = {"state": "stopped"}, {"definition_alias": "workflow"}
    return [
        *(executions(order_by, **each) for order_by in ("", "create_time") for each in ({}, stopped, workflow)),
        *(executions(order_by, late=True) for order_by in ("", "create_time")),
        *(executions(session=True, **each) for each in ({}, stopped, workflow)),
        executions(**stopped, **workflow),
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


WORKFLOW_LISTINGS = [*session_listings(), *execution_listings(), *event_listings()]
