"""Capabilities: types are opened in the order of their needs, closed in reverse, and refused when they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest
import sqlalchemy as sa
from blobhub_server.blobtypes.contract import BlobType, Opened
from blobhub_server.blobtypes.distinct import DuplicateName
from blobhub_server.blobtypes.order import CapabilityAmbiguous, CapabilityMissing, CircularNeeds
from blobhub_server.blobtypes.registry import BlobTypes, BrokenOffer, ForbiddenReference, InstalledType, MissingCollect
from blobhub_server.config import SettingsModel
from pydantic import Field
from served import WORKFLOW
from unserved import unserved


@runtime_checkable
class Heats(Protocol):
    def heat(self) -> str: ...


@runtime_checkable
class Cools(Protocol):
    def cool(self) -> str: ...


class Stove(Heats):
    def heat(self) -> str:
        return "hot"


class Ice(Cools):
    def cool(self) -> str:
        return "cold"


MAKERS = {Heats: Stove, Cools: Ice}


class Kind(BlobType):
    """A type that brings what it says, and writes down when it is opened and closed."""

    title = description = "A test's"

    def __init__(
        self,
        name: str,
        *,
        needs: Sequence[type] = (),
        wants: Sequence[type] = (),
        offers: Sequence[type] = (),
        brings: dict | None = None,
    ) -> None:
        self.name, self.needs, self.wants, self.offers = name, needs, wants, offers
        self.brings = {kind: MAKERS[kind]() for kind in offers} if brings is None else brings
        self.diary: list[str] = []
        self.given: dict[type, object] = {}

    @asynccontextmanager
    async def open(self, host, given):
        self.diary.append(f"{self.name} opens")
        self.given = {kind: given[kind] for kind in self.needs} | {kind: given.find(kind) for kind in self.wants}
        yield Opened(services=(), offers=self.brings)
        self.diary.append(f"{self.name} closes")

    async def validate(self, content):
        return []


def types_of(*kinds: Kind) -> BlobTypes:
    diary: list[str] = []
    for kind in kinds:
        kind.diary = diary
    return BlobTypes(
        {kind.name: InstalledType(type=kind, distribution="a test", settings=kind.settings()) for kind in kinds}
    )


@pytest.fixture
async def host(tmp_path: Path, fresh_sqlite):
    async with unserved(tmp_path, await fresh_sqlite(tmp_path / "blobhub.db")) as made:
        yield made.host


async def test_types_are_opened_in_the_order_of_their_needs_and_closed_in_reverse(host) -> None:
    first, second, third = (
        Kind("a.a", needs=[Cools]),
        Kind("b.b", needs=[Heats], offers=[Cools]),
        Kind("c.c", offers=[Heats]),
    )
    alone = Kind("d.d")
    async with types_of(first, second, third, alone).running(host):
        assert first.given == {Cools: second.brings[Cools]}
        assert second.given == {Heats: third.brings[Heats]}
    opened = [line.removesuffix(" opens") for line in first.diary[:4]]
    assert opened.index("c.c") < opened.index("b.b") < opened.index("a.a")
    assert [line.removesuffix(" closes") for line in first.diary[4:]] == opened[::-1]


async def test_what_a_type_wants_is_opened_before_it_where_somebody_offers_it_and_nothing_where_nobody_does(host) -> None:
    wanting, offering = Kind("a.a", wants=[Heats, Cools]), Kind("b.b", offers=[Heats])
    async with types_of(wanting, offering).running(host):
        assert wanting.given == {Heats: offering.brings[Heats], Cools: None}
    assert wanting.diary == ["b.b opens", "a.a opens", "a.a closes", "b.b closes"]
    with pytest.raises(CircularNeeds, match=r"a\.a needs Heats of b\.b"):
        types_of(Kind("a.a", wants=[Heats], offers=[Cools]), Kind("b.b", needs=[Cools], offers=[Heats]))


async def test_what_a_type_brought_is_forgotten_when_it_is_closed(host) -> None:
    """So that a second start in one process sees nothing of the first."""

    class Fails(Kind):
        @asynccontextmanager
        async def open(self, host, given):
            assert types.opened().keys() == {"a.a"}
            raise ZeroDivisionError
            yield

    kind = Kind("a.a", offers=[Heats])
    types = types_of(kind)
    for _ in range(2):
        async with types.running(host):
            assert types.opened()["a.a"].offers == kind.brings
        assert types.opened() == {}
        kind.brings = {Heats: Stove()}
    types = types_of(kind, Fails("b.b", needs=[Heats]))
    with pytest.raises(ZeroDivisionError):
        async with types.running(host):
            pass
    assert types.opened() == {}


async def test_a_type_gets_what_it_asked_for_and_nothing_else(host) -> None:
    class Curious(Kind):
        @asynccontextmanager
        async def open(self, host, given):
            with pytest.raises(KeyError):
                given[Heats]
            yield Opened(services=())

    async with types_of(Kind("a.a", offers=[Heats]), Curious("b.b")).running(host):
        pass


def test_a_need_that_nobody_offers_stops_the_start_and_is_named() -> None:
    with pytest.raises(CapabilityMissing, match=r"a\.a needs Heats, which no installed blob type offers"):
        types_of(Kind("a.a", needs=[Heats]), Kind("b.b", offers=[Cools]))


def test_a_capability_that_two_types_offer_stops_the_start_and_both_are_named() -> None:
    with pytest.raises(CapabilityAmbiguous, match=r"a\.a and b\.b both offer Heats"):
        types_of(Kind("b.b", offers=[Heats]), Kind("a.a", offers=[Heats]))


def test_needs_in_a_circle_stop_the_start_and_the_circle_is_told() -> None:
    kinds = Kind("a.a", needs=[Heats], offers=[Cools]), Kind("b.b", needs=[Cools], offers=[Heats]), Kind("c.c")
    with pytest.raises(CircularNeeds) as caught:
        types_of(*kinds)
    assert "a.a needs Heats of b.b" in str(caught.value)
    assert "b.b needs Cools of a.a" in str(caught.value)
    assert "c.c" not in str(caught.value)


def test_a_type_that_needs_what_it_offers_is_a_circle() -> None:
    with pytest.raises(CircularNeeds, match=r"a\.a needs Heats of a\.a"):
        types_of(Kind("a.a", needs=[Heats], offers=[Heats]))


@pytest.mark.parametrize(
    ("offers", "brings", "said"),
    [
        ([Heats], {}, r"a\.a says that it offers Heats, and does not bring it"),
        ([], {Heats: Stove()}, r"a\.a brings Heats, and does not say that it offers it"),
        ([Heats], {Heats: Ice()}, r"a\.a offers as Heats is none: Ice"),
    ],
)
async def test_a_type_that_does_not_bring_what_it_says_stops_the_start(host, offers, brings, said) -> None:
    kind = Kind("a.a", offers=offers, brings=brings)
    with pytest.raises(BrokenOffer, match=said):
        async with types_of(kind).running(host):
            pass


async def test_a_type_whose_rows_refer_to_what_others_delete_and_that_cannot_collect_them_stops_the_start(host) -> None:
    kind, declared = Kind("a.a"), sa.MetaData()
    things = sa.Table("things", declared, sa.Column("id", sa.Integer, primary_key=True))
    parts = sa.Table("parts", declared, sa.Column("thing_id", sa.ForeignKey("things.id")))
    kind.tables = (things, parts)
    async with types_of(kind).running(host):
        pass
    kind.tables += (sa.Table("pages", declared, sa.Column("revision_id", sa.ForeignKey("revisions.id"))),)
    with pytest.raises(MissingCollect, match=r"a\.a has the table pages, which refers to revisions"):
        async with types_of(kind).running(host):
            pass


@pytest.mark.parametrize("removed_first", ["blobs", "organizations"])
async def test_a_type_with_a_foreign_key_to_what_is_removed_first_stops_the_start(host, removed_first: str) -> None:
    kind, declared = Kind("a.a"), sa.MetaData()
    kind.tables = (sa.Table("pages", declared, sa.Column("parent", sa.ForeignKey(f"{removed_first}.id"))),)
    with pytest.raises(ForbiddenReference, match=rf"a\.a has the table pages with a foreign key to {removed_first}"):
        async with types_of(kind).running(host):
            pass


class Shared(SettingsModel):
    oven_degrees: int = Field(180, description="How hot.")


class Taken(SettingsModel):
    listen: str = Field("", description="What the server has.")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([Shared, Shared], r"BLOBHUB_OVEN_DEGREES .* both a\.a and b\.b"),
        ([Taken], r"BLOBHUB_LISTEN .* both the server and a\.a"),
    ],
)
def test_two_settings_of_one_name_stop_the_start_and_both_owners_are_named(settings, said) -> None:
    kinds = [Kind(name) for name in ("a.a", "b.b")]
    for kind, model in zip(kinds, settings, strict=False):
        kind.settings = model
    with pytest.raises(DuplicateName, match=said):
        types_of(*kinds)


async def test_a_type_is_given_its_settings_from_the_environment_or_from_whoever_starts_it(host, monkeypatch) -> None:
    monkeypatch.setenv("BLOBHUB_CODE_WORKERS", "7")
    (workflow,) = (item for item in BlobTypes.load().all() if item.type.name == WORKFLOW)
    assert workflow.settings.model_dump()["code_workers"] == 7
    (workflow,) = (item for item in BlobTypes.load(settings={"code_workers": 3}).all() if item.type.name == WORKFLOW)
    assert workflow.settings.model_dump()["code_workers"] == 3
