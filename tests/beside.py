"""A server and the model of it, called side by side."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc
from blobhub.v1 import (
    blob_pb2,
    caller_pb2,
    definition_pb2,
    limit_pb2,
    member_pb2,
    metadata_pb2,
    organization_pb2,
    revision_pb2,
    session_pb2,
)
from blobhub_client import page
from blobhub_server import errors
from blobhub_server.blobtypes.conformance import unpack
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from model import Model
from served import Api
from things import CURRENT, READ, Blob, Caller, Holder, Organization, Refused, Revision

MESSAGES = {
    "blobs": blob_pb2,
    "callers": caller_pb2,
    "definitions": definition_pb2,
    "limits": limit_pb2,
    "members": member_pb2,
    "metadata": metadata_pb2,
    "organizations": organization_pb2,
    "revisions": revision_pb2,
    "sessions": session_pb2,
}
CODES = {kind.reason: kind.code for kind in errors.BlobHubError.__subclasses__()}
ACCEPTED = "accepted"
ADMINISTRATOR = Caller(user="administrator", administrator=True)
ANN, BOB, CID = map(Caller, ("ann", "bob", "cid"))
READER = Caller(user="ann", most=READ)
ANONYMOUS = Caller(user="")
CALLERS = (ADMINISTRATOR, ANN, BOB, CID, READER, ANONYMOUS)


@dataclass
class House:
    """A server and its callers; `seen` counts what came of the calls, by method and outcome."""

    loop: asyncio.AbstractEventLoop
    apis: dict[Caller, Api]
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)

    def run(self, made: Coroutine[Any, Any, Any]) -> Any:
        """Await something in the loop of the server, from another thread."""
        return asyncio.run_coroutine_threadsafe(made, self.loop).result()

    def request(self, method: str, **fields: Any) -> Message:
        """The request of a method such as `blobs.GetBlob`, from JSON."""
        noun, name = method.split(".")
        return ParseDict(fields, getattr(MESSAGES[noun], f"{name}Request")())

    def stub(self, who: Caller, method: str) -> Callable[..., Any]:
        """A method as a caller calls it."""
        noun, name = method.split(".")
        return getattr(getattr(self.apis[who], noun), name)


def as_dict(message: Message) -> dict[str, Any]:
    """A message as JSON, with every field, and enums as numbers."""
    return MessageToDict(
        message, preserving_proto_field_name=True, use_integers_for_enums=True, always_print_fields_with_no_presence=True
    )


def operation(method: str) -> str:
    """What the model calls a method: `get_blob` for `blobs.GetBlob`."""
    return re.sub("(?<!^)(?=[A-Z])", "_", method.split(".")[1]).lower()


def part(message: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """The fields of a message that the model shows."""
    return {name: message[name] for name in shown}


def refusal_of(error: grpc.aio.AioRpcError) -> tuple[str, str, dict[str, str]]:
    """Code, reason and metadata of an error."""
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    return error.code().name, info.reason, dict(info.metadata)


class Beside:
    """Makes every call of the server and of the model, and compares what comes of it.

    `sound` is false from a difference on. What is compared is this run's: all aliases begin with the prefix.
    """

    def __init__(self, house: House, prefix: str) -> None:
        self.house = house
        self.prefix = prefix
        self.model = Model(["administrator", "ann", "bob", "cid"])
        self.sound = True
        self._sizes = itertools.cycle((1, 2, 3))
        self._turns = itertools.cycle(CALLERS)

    # Calls

    def call(self, who: Caller, method: str, **fields: Any) -> tuple[Any, dict[str, Any]] | None:
        """Make a call of the model and of the server; both accept it, or both refuse it in the same way.

        Return what the model says it was about, and the answer; None when it was refused.
        """
        self.sound = False
        thing, said, answer, refused = None, None, None, None
        self.model.current = ""
        try:
            thing = getattr(self.model, operation(method))(who, **fields)
        except Refused as refusal:
            said = (CODES[refusal.reason], refusal.reason, refusal.metadata)
        if fields.get("etag") == CURRENT:
            fields["etag"] = self.model.current
        try:
            answer = self.house.run(self._send(who, method, fields))
        except grpc.aio.AioRpcError as error:
            refused = refusal_of(error)
        assert refused == said
        self.house.seen[method, said[1] if said else ACCEPTED] += 1
        self.sound = True
        return None if said else (thing, as_dict(answer))

    async def _send(self, who: Caller, method: str, fields: dict[str, Any]) -> Message:
        return await self.house.stub(who, method)(self.house.request(method, **fields))

    def write(self, who: Caller, method: str, record: str, **fields: Any) -> Any:
        """Such a call, of a method that answers the record it has written: note its id and its new etag."""
        made = self.call(who, method, **fields)
        if made is None:
            return None
        self.sound = False
        thing, answer = made[0], made[1][record]
        assert answer["etag"] != thing.etag
        thing.id, thing.etag = thing.id or answer.get("id", ""), answer["etag"]
        if isinstance(thing, Blob) and "revision" in made[1]:
            thing.default.id, thing.default.etag = made[1]["revision"]["id"], made[1]["revision"]["etag"]
        assert part(answer, thing.shown()) == thing.shown()
        self.sound = True
        return thing

    def get(self, who: Caller, method: str, record: str, **fields: str) -> None:
        """Such a call, of a method that answers a record."""
        found = self.call(who, method, **fields)
        if found:
            assert part(found[1][record], found[0].shown()) == found[0].shown()

    def roles(self, who: Caller, scope: str) -> None:
        """Compare a caller's effective role on one organization or blob."""
        found = self.call(who, "callers.GetCaller", parent=scope)
        if found:
            assert found[1]["roles"] == found[0]

    def etag_of_today(self, blob: Blob, *, changed: bool) -> None:
        """Note the etag of a blob, which has changed, or not, by a call that does not answer it."""
        etag = self.house.run(self._send(ADMINISTRATOR, "blobs.GetBlob", {"blob": blob.id})).blob.etag
        assert (etag != blob.etag) is changed
        blob.etag = etag

    def etag_of_maker(self, organization: Organization) -> None:
        """Note the etag of the member that a new organization has."""
        (member,) = organization.members.values()
        asked = {"parent": organization.id, "user": f"@{member.user_name}"}
        member.etag = self.house.run(self._send(ADMINISTRATOR, "members.GetMember", asked)).member.etag

    def everything(self) -> None:
        """Compare all that there is."""
        for who in CALLERS:
            self.listed(who, "organizations.ListOrganizations", beside={"alias_prefix": self.prefix})
            self._roles(who)
        for organization in self.model.organizations:
            self._of_holder(organization)
            for who in CALLERS:
                self.listed(who, "blobs.ListBlobs", organization=organization.alias)
            held = {"api_keys": 0, "blobs": len(organization.blobs)}
            held["members"] = sum(len(holder.members) for holder in (organization, *organization.blobs))
            of_types = {"workflow.log_bytes": 0, "workflow.open_tasks": 0}
            self._held(organization, {f"organization.{name}": count for name, count in held.items()} | of_types)
            for blob in organization.blobs:
                self._of_blob(blob)

    def listed(self, who: Caller, method: str, *, beside: dict[str, Any] | None = None, **fields: str) -> None:
        """Compare a list, a few items a page. `beside` are fields that the model does not know."""
        try:
            expected = getattr(self.model, operation(method))(who, **fields)
        except Refused:
            self.call(who, method, **fields)
            return
        request = self.house.request(method, **fields, **(beside or {}), page_size=next(self._sizes))

        async def collect() -> list[dict[str, Any]]:
            return [as_dict(item) async for item in page(self.house.stub(who, method), request)]

        found = self.house.run(collect())
        if method == "metadata.ResolveMetadata":
            expected = [record.shown() | {"source": source} for source, record in expected]
            found = [item["record"] | {"source": item["source"]} for item in found]
        else:
            expected = [thing.shown() for thing in expected]
        assert [part(item, shown) for item, shown in zip(found, expected, strict=True)] == expected
        self.house.seen[method, ACCEPTED] += 1

    def _roles(self, who: Caller) -> None:
        """Roles everywhere, as far as it is this run's; organizations and blobs are mixed in order of creation."""
        answer = as_dict(self.house.run(self._send(who, "callers.GetCaller", {})))
        found = [role for role in answer["roles"] if role["reference"].startswith(self.prefix)]
        assert found == sorted(self.model.get_caller(who), key=lambda role: role["blob_id"] or role["organization_id"])

    def _of_holder(self, holder: Holder) -> None:
        self.listed(next(self._turns), "members.ListMembers", parent=holder.id)
        self.listed(ADMINISTRATOR, "members.ListMembers", parent=holder.id)
        for who in CALLERS:
            self.roles(who, holder.id)

    def _held(self, holder: Organization | Blob, expected: dict[str, int]) -> None:
        answer = self.house.run(self._send(ADMINISTRATOR, "limits.GetLimits", {"parent": holder.id}))
        assert {
            limit.name: limit.held
            for limit in answer.limits
            if limit.HasField("held") and limit.source != limit_pb2.LIMIT_SOURCE_FIXED
        } == expected

    def _of_blob(self, blob: Blob) -> None:
        self._of_holder(blob)
        who = next(self._turns)
        self.listed(who, "revisions.ListRevisions", blob=blob.id)
        self.listed(ADMINISTRATOR, "revisions.ListRevisions", blob=blob.id)
        self.listed(who, "metadata.ListMetadata", parent=blob.id)
        documents = {document for revision in blob.revisions for document in revision.content.values()}
        held = {
            "blob.bytes": sum(map(len, documents)),
            "blob.open_operations": 0,
            "blob.revisions": len(blob.revisions),
            "workflow.children_per_execution": 0,
            "workflow.definitions_per_revision": max(len(revision.content) for revision in blob.revisions),
            "workflow.execution_depth": 0,
            "workflow.executions_per_session": 0,
            "workflow.sessions_per_blob": sum(len(revision.sessions) for revision in blob.revisions),
            "workflow.signals_per_blob": 0,
            "workflow.signal_bytes_per_blob": 0,
        }
        self._held(blob, held)
        assert self.house.run(self._events(blob)) == list(enumerate(blob.events, 1))
        for revision in blob.revisions:
            self._of_revision(blob, revision)

    async def _events(self, blob: Blob) -> list[tuple[int, str]]:
        request = blob_pb2.WatchBlobRequest(blob=blob.id, replay_only=True)
        watch = self.house.apis[ADMINISTRATOR].blobs.WatchBlob(request)
        return [(event.sequence, event.type) async for message in watch for event in message.events]

    def _of_revision(self, blob: Blob, revision: Revision) -> None:
        self.listed(ADMINISTRATOR, "metadata.ListMetadata", parent=revision.id)
        self.listed(next(self._turns), "metadata.ResolveMetadata", revision=revision.id)
        answer = self.house.run(self._send(ADMINISTRATOR, "revisions.GetRevisionDependents", {"revision": revision.id}))
        found = {item.kind: list(item.ids) for item in answer.dependents}
        assert found == self.model.dependents(blob, revision)
