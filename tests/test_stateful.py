"""Organizations, blobs, revisions, metadata and members driven through random operations, beside a plain model of them."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from typing import Any

import acme
import flows
import pytest
from beside import ACCEPTED, ADMINISTRATOR, ANN, ANONYMOUS, BOB, CID, READER, Beside, House
from figures import Figure
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from scale import scaled
from served import WORKFLOW, Api, Served, connected
from things import ADMIN, COMMIT, CURRENT, DRAFT, PRIVATE, PUBLIC, READ, WRITE, Caller

STALE = "00000000-0000-7000-8000-000000000000"
NAMES = ("a", "a-b", "a_b", "ab")
KEYS = ("k", "K", "k/1", "k_1")
DOCUMENTS = (flows.code("pass"), flows.code("1 + 1"))

_runs = itertools.count(1)


def drawn(kind: str) -> st.SearchStrategy[Any]:
    """One of what a method of the machine lists now."""
    return st.runner().flatmap(lambda machine: st.sampled_from(getattr(machine, kind)()))


callers = st.sampled_from((*5 * [ADMINISTRATOR], *3 * [ANN], *2 * [BOB], CID, READER, ANONYMOUS))
etags = st.sampled_from(("", CURRENT, STALE))
visibilities = st.sampled_from((0, PRIVATE, PUBLIC))
texts = st.sampled_from(("", "one", "two"))
roles = st.sampled_from((READ, WRITE, ADMIN))
keys = st.sampled_from(KEYS)
values = st.sampled_from((None, 1, "one", [True, {}], {"of": "it"}))
changes = {
    "alias": drawn("aliases"),
    "description": texts,
    "visibility": visibilities,
    "update_mask": st.sampled_from(("", "", "alias", "description", "visibility", "alias,description")),
    "etag": etags,
}
changed_records = st.fixed_dictionaries(
    {"update_mask": st.sampled_from(("", "value", "description", "value,description"))},
    optional={"value": values, "description": texts},
)

ADMITTED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "RENAMED"}
EDITED = {*ADMITTED, "STALE_ETAG", "WRONG_PHASE"}
REFUSALS = {
    "organizations.CreateOrganization": {"UNAUTHENTICATED", "PERMISSION_DENIED", "ALREADY_EXISTS"},
    "organizations.GetOrganization": ADMITTED,
    "organizations.UpdateOrganization": {*ADMITTED, "ALREADY_EXISTS", "STALE_ETAG"},
    "organizations.DeleteOrganization": {*ADMITTED, "NOT_EMPTY", "STALE_ETAG"},
    "blobs.CreateBlob": {*ADMITTED, "ALREADY_EXISTS"},
    "blobs.GetBlob": ADMITTED,
    "blobs.UpdateBlob": {*ADMITTED, "ALREADY_EXISTS", "STALE_ETAG", "NOT_FOUND"},
    "blobs.DeleteBlob": {*ADMITTED, "NOT_EMPTY", "STALE_ETAG"},
    "revisions.CreateRevision": {*ADMITTED, "WRONG_PHASE"},
    "revisions.GetRevision": ADMITTED,
    "revisions.CommitRevision": {*EDITED, "INVALID_CONTENT"},
    "revisions.PublishRevision": EDITED,
    "revisions.DiscardRevision": {*EDITED, "REVISION_IN_USE"},
    "revisions.UpdateRevision": EDITED,
    "definitions.PutDefinition": EDITED,
    "sessions.CreateSession": ADMITTED,
    "metadata.CreateMetadata": {*ADMITTED, "ALREADY_EXISTS"},
    "metadata.GetMetadata": ADMITTED,
    "metadata.UpdateMetadata": {*ADMITTED, "STALE_ETAG"},
    "metadata.DeleteMetadata": {*ADMITTED, "STALE_ETAG"},
    "members.CreateMember": {*ADMITTED, "ALREADY_EXISTS"},
    "members.UpdateMember": {*ADMITTED, "LAST_ADMIN", "STALE_ETAG"},
    "members.DeleteMember": {*ADMITTED, "LAST_ADMIN", "STALE_ETAG"},
    "callers.GetCaller": {"RENAMED"},
}
"""What the rules must have met at the end, each at least once; and every method must have been accepted `OFTEN`.

That is at full scale. At a smaller one as large a part of them must have been met, and four in five in any case.
"""
OFTEN = scaled(3, least=1)


class Platform(Beside, RuleBasedStateMachine):
    """Every rule makes one call and compares what comes of it with what the model says."""

    def __init__(self, house: House) -> None:
        RuleBasedStateMachine.__init__(self)
        Beside.__init__(self, house, f"r{next(_runs)}-")

    # What rules draw from: mostly what there is, in every way it can be named, and something that may not be there

    def aliases(self) -> list[str]:
        return [self.prefix + name for name in NAMES]

    def organizations(self) -> list[str]:
        found = self.aliases()[:1]
        for organization in self.model.organizations:
            found += [organization.alias, organization.id, *sorted(organization.former)]
        return found

    def blobs(self) -> list[str]:
        found = [f"{self.prefix}a/{self.prefix}a"]
        for place in self.model.blobs():
            organization, blob = place.organization, place.blob
            found += [f"{organization.alias}/{blob.alias}", blob.id, f"{organization.id}/{blob.alias}"]
            found += [f"{organization.alias}/{alias}" for alias in sorted(blob.former)]
            found += [f"{alias}/{blob.alias}" for alias in sorted(organization.former)]
        return found

    def scopes(self) -> list[str]:
        return self.organizations() + self.blobs()

    def revisions(self) -> list[str]:
        found = [f"{self.blobs()[-1]}{version}" for version in ("", "@default", "@draft", "@1", "@9")]
        for place in self.model.blobs():
            found.append(f"{place.blob.id}@9")
            for revision in place.blob.revisions:
                found += [revision.id, f"{place.organization.alias}/{place.blob.alias}@{revision.number or revision.id}"]
        return found

    def drafts(self) -> list[str]:
        return self._mostly(DRAFT)

    def commits(self) -> list[str]:
        return self._mostly(COMMIT)

    def _mostly(self, phase: int) -> list[str]:
        ids = [revision.id for place in self.model.blobs() for revision in place.blob.revisions if revision.phase == phase]
        return 3 * ids + self.revisions()

    def versions(self) -> list[str]:
        ids = [revision.id for place in self.model.blobs() for revision in place.blob.revisions]
        return ["", "", "default", "1", "2", *ids]

    def targets(self) -> list[str]:
        return self.blobs() + self.revisions()

    def records(self) -> list[tuple[str, str]]:
        found = [(target, KEYS[-1]) for target in self.targets()[:9]]
        for blob in (place.blob for place in self.model.blobs()):
            found += 5 * [(holder.id, key) for holder in (blob, *blob.revisions) for key in holder.records]
        return found

    def members(self) -> list[tuple[str, str]]:
        found = [(scope, user) for scope in self.scopes()[:4] for user in ("@me", "@nobody")]
        for place in self.model.blobs():
            found += [(holder.id, f"@{user}") for holder in (place.organization, place.blob) for user in holder.members]
        return found

    @initialize()
    def furnish(self) -> None:
        """Something of everything: phases, roles, aliases that were given up, records on blobs and revisions."""
        for alias, given, visibility in (("a-b", "a", PRIVATE), ("ab", "a_b", PUBLIC)):
            old, new, update = self.prefix + alias, self.prefix + given, {"update_mask": "alias", "etag": ""}
            update |= {"alias": new, "visibility": 0, "description": ""}
            self.create_organization(ADMINISTRATOR, alias=old, visibility=visibility)
            self.create_blob(ADMINISTRATOR, organization=old, alias=old, visibility=PRIVATE)
            self.update_blob(ADMINISTRATOR, blob=f"{old}/{old}", default_revision="", **update)
            self.update_organization(ADMINISTRATOR, organization=old, **update)
        organization, blob = f"{self.prefix}a", f"{self.prefix}a/{self.prefix}a"
        other = f"{self.prefix}a_b/{self.prefix}a_b"
        for user, scope, role in (
            ("@ann", organization, ADMIN),
            ("@bob", organization, WRITE),
            ("@cid", blob, READ),
            ("@cid", other, READ),
        ):
            self.create_member(ADMINISTRATOR, parent=scope, user=user, role=role)
        self.put_definition(BOB, revision=f"{blob}@draft", alias="workflow", document=DOCUMENTS[0], etag="")
        self.commit_revision(BOB, revision=f"{blob}@draft", comment="one", etag=CURRENT)
        self.publish_revision(BOB, revision=blob, label="", keep_default=False, etag=CURRENT)
        for _ in range(2):
            self.create_revision(BOB, blob=blob, base_revision="")
            self.commit_revision(BOB, revision=f"{blob}@draft", comment="", etag="")
        self.create_revision(BOB, blob=blob, base_revision="")
        self.create_blob(ANN, organization=organization, alias=f"{self.prefix}ab", visibility=PUBLIC)
        self.create_session(ANN, revision=f"{organization}/{self.prefix}ab")
        for target, key in ((blob, "k"), (blob, "K"), (f"{blob}@1", "k"), (f"{blob}@draft", "k_1")):
            self.create_metadata(BOB, on=target, key=key, value="one")
        self.get_metadata(BOB, of=(blob, "k"))

    @rule(who=callers, alias=drawn("aliases"), visibility=visibilities)
    def create_organization(self, who: Caller, **fields: Any) -> None:
        made = self.write(who, "organizations.CreateOrganization", "organization", **fields)
        if made:
            self.etag_of_maker(made)

    @rule(who=callers, organization=drawn("organizations"), **changes)
    def update_organization(self, who: Caller, **fields: Any) -> None:
        self.write(who, "organizations.UpdateOrganization", "organization", **fields)

    @precondition(lambda self: len(self.model.organizations) > 1)
    @rule(who=callers, organization=drawn("organizations"), cascade=st.sampled_from((False, False, True)), etag=etags)
    def delete_organization(self, who: Caller, **fields: Any) -> None:
        self.call(who, "organizations.DeleteOrganization", **fields)

    @rule(who=callers, organization=drawn("organizations"), alias=drawn("aliases"), visibility=visibilities)
    def create_blob(self, who: Caller, **fields: Any) -> None:
        self.write(who, "blobs.CreateBlob", "blob", type=WORKFLOW, **fields)

    @rule(who=callers, blob=drawn("blobs"), default_revision=drawn("versions"), **changes)
    def update_blob(self, who: Caller, **fields: Any) -> None:
        self.write(who, "blobs.UpdateBlob", "blob", **fields)

    @precondition(lambda self: len(self.model.blobs()) > 2)
    @rule(who=callers, blob=drawn("blobs"), cascade=st.sampled_from((False, False, True)), etag=etags)
    def delete_blob(self, who: Caller, **fields: Any) -> None:
        self.call(who, "blobs.DeleteBlob", **fields)

    @rule(who=callers, blob=drawn("blobs"), base_revision=drawn("versions"))
    def create_revision(self, who: Caller, **fields: Any) -> None:
        self.write(who, "revisions.CreateRevision", "revision", **fields)

    @rule(
        who=callers,
        revision=drawn("drafts"),
        alias=st.sampled_from(("workflow", "another")),
        document=st.sampled_from(DOCUMENTS),
        etag=etags,
    )
    def put_definition(self, who: Caller, **fields: Any) -> None:
        made = self.call(who, "definitions.PutDefinition", **fields)
        if made:
            assert made[0].etag != made[1]["revision_etag"]
            made[0].etag = made[1]["revision_etag"]

    @rule(who=callers, revision=drawn("revisions"))
    def create_session(self, who: Caller, **fields: Any) -> None:
        made = self.call(who, "sessions.CreateSession", **fields)
        if made:
            made[0].sessions.append(made[1]["session"]["id"])

    @rule(who=callers, revision=drawn("drafts"), comment=texts, etag=etags)
    def commit_revision(self, who: Caller, **fields: Any) -> None:
        self.write(who, "revisions.CommitRevision", "revision", **fields)

    @rule(who=callers, revision=drawn("commits"), label=texts, keep_default=st.booleans(), etag=etags)
    def publish_revision(self, who: Caller, **fields: Any) -> None:
        before = {place.blob: place.blob.default for place in self.model.blobs()}
        made = self.write(who, "revisions.PublishRevision", "revision", **fields)
        for blob in (place.blob for place in self.model.blobs() if made in place.blob.revisions):
            self.etag_of_today(blob, changed=blob.default is not before[blob])

    @rule(who=callers, revision=drawn("drafts"), etag=etags)
    def discard_revision(self, who: Caller, **fields: Any) -> None:
        self.call(who, "revisions.DiscardRevision", **fields)

    @rule(who=callers, revision=drawn("drafts"), comment=texts, etag=etags)
    def update_revision(self, who: Caller, **fields: Any) -> None:
        self.write(who, "revisions.UpdateRevision", "revision", **fields)

    @rule(who=callers, on=drawn("targets"), key=keys, value=values)
    def create_metadata(self, who: Caller, on: str, **fields: Any) -> None:
        self.write(who, "metadata.CreateMetadata", "record", parent=on, **fields)

    @rule(who=callers, of=drawn("records"), changes=changed_records, etag=etags)
    def update_metadata(self, who: Caller, of: tuple[str, str], etag: str, changes: dict[str, Any]) -> None:
        self.write(who, "metadata.UpdateMetadata", "record", parent=of[0], key=of[1], etag=etag, **changes)

    @rule(who=callers, of=drawn("records"), etag=etags)
    def delete_metadata(self, who: Caller, of: tuple[str, str], etag: str) -> None:
        self.call(who, "metadata.DeleteMetadata", parent=of[0], key=of[1], etag=etag)

    @rule(who=callers, parent=drawn("scopes"), user=st.sampled_from(("@ann", "@bob", "@cid", "@nobody")), role=roles)
    def create_member(self, who: Caller, **fields: Any) -> None:
        self.write(who, "members.CreateMember", "member", **fields)

    @rule(who=callers, of=drawn("members"), role=roles, etag=etags)
    def update_member(self, who: Caller, of: tuple[str, str], **fields: Any) -> None:
        self.write(who, "members.UpdateMember", "member", parent=of[0], user=of[1], **fields)

    @rule(who=callers, of=drawn("members"), etag=etags)
    def delete_member(self, who: Caller, of: tuple[str, str], etag: str) -> None:
        self.call(who, "members.DeleteMember", parent=of[0], user=of[1], etag=etag)

    @rule(who=callers, organization=drawn("organizations"), blob=drawn("blobs"), revision=drawn("revisions"))
    def get_each(self, who: Caller, **fields: str) -> None:
        for noun, reference in fields.items():
            self.get(who, f"{noun}s.Get{noun.title()}", noun, **{noun: reference})

    @rule(who=callers, of=drawn("records"))
    def get_metadata(self, who: Caller, of: tuple[str, str]) -> None:
        self.get(who, "metadata.GetMetadata", "record", parent=of[0], key=of[1])

    @rule(who=callers, parent=drawn("scopes"))
    def get_roles(self, who: Caller, parent: str) -> None:
        self.roles(who, parent)

    def teardown(self) -> None:
        """Compare all that the server has with the model, and delete it."""
        if not self.sound:
            return
        self.everything()
        for organization in list(self.model.organizations):
            self.call(
                ADMINISTRATOR, "organizations.DeleteOrganization", organization=organization.id, cascade=True, etag=CURRENT
            )
        self.everything()


@pytest.mark.timeout(3600)
async def test_the_platform_does_what_its_model_does(server: Served, api: Api, figure: Figure) -> None:
    async with AsyncExitStack() as stack:
        apis = {ADMINISTRATOR: api}
        for who in (ANN, BOB, CID):
            apis[who] = await stack.enter_async_context(acme.person(server, api, who.user))
        confined = await acme.key(apis[ANN], "@me", acme.READ)
        apis[READER] = await stack.enter_async_context(connected(server.address, confined.key))
        apis[ANONYMOUS] = await stack.enter_async_context(connected(server.address, None))
        house = House(loop=asyncio.get_running_loop(), apis=apis)
        how = settings(
            derandomize=True,
            deadline=None,
            max_examples=scaled(30, least=12),
            stateful_step_count=240,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        await asyncio.to_thread(run_state_machine_as_test, lambda: Platform(house), settings=how)
    seen = house.seen
    wanted = {(method, reason) for method, reasons in REFUSALS.items() for reason in reasons}
    missed = {refusal for refusal in wanted if not seen[refusal]}
    figure(f"{seen.total()} calls, {len(wanted) - len(missed)} of {len(wanted)} refusals met")
    assert not {method: count for method in REFUSALS if (count := seen[method, ACCEPTED]) < OFTEN}
    assert len(wanted) - len(missed) >= scaled(len(wanted), least=4 * len(wanted) // 5), missed
