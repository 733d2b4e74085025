"""Statements that are compiled once, and the records that rows become. On SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from blobhub_server.db.engine import IntegrityError
from blobhub_server.db.opening import open_database
from blobhub_server.db.prepared import Prepared, is_one_of, upsert
from blobhub_server.db.records import ColumnGroup, Mapper, Pair, Scalar
from blobhub_server.db.schema import Choice, Duration, Id, Json, Time
from blobhub_server.db.sqlite import SqliteReader
from blobhub_server.errors import StorageUnavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from scale import scaled


class Colour(IntEnum):
    RED = 1
    BLUE = 2


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class Box:
    """A record with every kind of column; its fields are in another order than the columns."""

    label: str | None
    id: str
    corner: tuple[int, int] | None
    made: datetime
    lasts: timedelta | None
    colour: Colour
    size: Size | None
    content: Any
    sealed: bool
    data: bytes
    neighbours: int = 0


boxes = sa.Table(
    "test_boxes",
    sa.MetaData(),
    sa.Column("id", Id(), primary_key=True),
    sa.Column("x", sa.Integer),
    sa.Column("y", sa.Integer),
    sa.Column("made", Time(), nullable=False),
    sa.Column("lasts_us", Duration(), key="lasts"),
    sa.Column("colour", Choice(Colour, sa.SmallInteger()), nullable=False),
    sa.Column("size", Choice(Size, sa.String(16))),
    sa.Column("content", Json()),
    sa.Column("sealed", sa.Boolean, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("label", sa.String(64), unique=True),
)
_others = boxes.alias()
CORNER = ColumnGroup(
    fields=("corner",),
    columns=("x", "y"),
    load=lambda row: {"corner": None if row["x"] is None else (row["x"], row["y"])},
    dump=lambda box: dict(zip(("x", "y"), box.corner or (None, None), strict=True)),
)
BOX = Mapper(
    Box,
    boxes,
    groups=[CORNER],
    looked_up={"neighbours": sa.select(sa.func.count()).where(_others.c.x == boxes.c.x).scalar_subquery()},
)
INSERT = Prepared(boxes.insert())
ALL = Prepared(BOX.select().order_by(boxes.c.id), BOX)
GET = Prepared(BOX.select().where(boxes.c.id == sa.bindparam("box")), BOX)
SOME = Prepared(BOX.select().where(is_one_of(boxes.c.id, "ids")).order_by(boxes.c.id), BOX)
PAINT = Prepared(
    boxes.update().where(boxes.c.id == sa.bindparam("box")).values(colour=sa.bindparam("colour")).returning(boxes.c.label),
    Scalar(str),
)
FIRST = Prepared(upsert(boxes, keys=[boxes.c.id], changed=(), returning=[boxes.c.id]), Scalar(str))

NOW = datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC)


def box(id_: str, **fields: Any) -> Box:
    usual = {"label": None, "corner": None, "made": NOW, "lasts": None, "colour": Colour.RED, "size": None, "content": None}
    return Box(**usual | {"id": id_, "sealed": False, "data": b""} | fields)


@pytest.fixture
async def db(database_url):
    opened = await open_database(database_url)
    async with opened.write() as tx:
        await tx.execute(sa.schema.CreateTable(boxes))
    yield opened
    await opened.close()


FULL = {
    "label": "full",
    "corner": (3, 4),
    "lasts": timedelta(days=1, microseconds=1),
    "colour": Colour.BLUE,
    "size": Size.LARGE,
    "content": {"a": [1, None, "ü"]},
    "sealed": True,
    "data": b"\0\xff",
}


async def test_records_come_back_as_they_went_in(db):
    kept = [box("1", **FULL), box("2")]
    async with db.write() as tx:
        await tx.run(INSERT, **BOX.row(kept[0]))
        await tx.run_each(INSERT, [BOX.row(kept[1])])
    kept[0] = box("1", **FULL, neighbours=1)
    async with db.read() as tx:
        assert await tx.all(ALL) == kept
        assert await tx.first(GET, box="1") == kept[0]
        assert await tx.first(GET, box="3") is None
        assert BOX.all(await tx.execute(BOX.select().order_by(boxes.c.id))) == kept
        assert type((await tx.one(GET, box="1")).colour) is Colour


async def test_core_stores_and_reads_what_drivers_do(db):
    """The types of columns say how values are kept, for both ways."""
    async with db.write() as tx:
        await tx.execute(boxes.insert(), [BOX.row(box("1", **FULL))])
        await tx.run(INSERT, **BOX.row(box("2", **FULL | {"label": None})))
        rows = [list(row)[1:-1] for row in await tx.execute(sa.text("SELECT * FROM test_boxes"))]
    assert rows[0] == rows[1]


async def test_two_things_of_a_row_are_read_by_name(db):
    both = Prepared(BOX.select(boxes.c.y.label("height")), Pair(Scalar(int, "height"), BOX))
    async with db.write() as tx:
        await tx.run(INSERT, **BOX.row(box("1", corner=(3, 4))))
        assert await tx.first(both) == (4, box("1", corner=(3, 4), neighbours=1))


async def test_a_list_is_one_parameter_however_long_it_is(db):
    ids = [f"{number:03}" for number in range(200)]
    async with db.write() as tx:
        await tx.run_each(INSERT, [BOX.row(box(id_)) for id_ in ids])
        for wanted in ([], ["007"], ids[50:150], ["no", "001", "001", "';"]):
            assert [found.id for found in await tx.all(SOME, ids=wanted)] == sorted(set(wanted) & set(ids))
        assert await tx.all(SOME.locking, ids=["001"]) == [box("001")]


async def test_many_changes_return_what_each_returned(db):
    async with db.write() as tx:
        await tx.run_each(INSERT, [BOX.row(box(str(number), label=f"box {number}")) for number in range(3)])
        painted = await tx.run_each(PAINT, [{"box": id_, "colour": Colour.BLUE} for id_ in ("2", "no", "0")])
        assert painted == ["box 2", "box 0"]
        stored = await tx.run_each(FIRST, [BOX.row(box(id_)) for id_ in ("1", "new", "new")])
        assert stored == ["new"]
        assert await tx.run_each(PAINT, []) == []


async def test_a_refused_row_is_an_integrity_error_and_undone_with_its_savepoint(db):
    async with db.write() as tx:
        await tx.run(INSERT, **BOX.row(box("1", label="taken")))
        for refused in ([box("1")], [box("2"), box("3", label="taken")]):
            with pytest.raises(IntegrityError) as error:
                async with tx.savepoint():
                    await tx.run_each(INSERT, [BOX.row(each) for each in refused])
            assert "taken" not in str(error.value)
        await tx.run(INSERT, **BOX.row(box("4")))
    async with db.read() as tx:
        assert [found.id for found in await tx.all(ALL)] == ["1", "4"]


async def test_other_errors_are_those_of_core(db):
    nothing = Prepared(sa.select(sa.func.test_nowhere()), Scalar(str))
    with pytest.raises(sa.exc.DBAPIError, match="test_nowhere"):
        async with db.read() as tx:
            await tx.first(nothing)


async def test_a_parameter_that_is_not_given_is_an_error_here(db):
    async with db.read() as tx:
        with pytest.raises(KeyError, match="box"):
            await tx.first(GET, other="1")


async def test_a_parameter_that_the_statement_does_not_have_is_refused(db):
    painted = {"box": "1", "colour": Colour.BLUE}
    async with db.write() as tx:
        with pytest.raises(TypeError, match="shade"):
            await tx.run(PAINT, **painted, shade=3)
        with pytest.raises(TypeError, match="shade"):
            await tx.run_each(PAINT, [painted, painted | {"shade": 3}])
        with pytest.raises(TypeError, match="box"):
            await tx.all(ALL, box="1")


async def test_a_parameter_that_is_used_twice_is_given_once(db):
    at = Prepared(BOX.select().where(boxes.c.x == sa.bindparam("at"), boxes.c.y == sa.bindparam("at"), boxes.c.x > 1), BOX)
    async with db.write() as tx:
        await tx.run_each(INSERT, [BOX.row(box("1", corner=(3, 3))), BOX.row(box("2", corner=(3, 4)))])
        assert [found.id for found in await tx.all(at, at=3)] == ["1"]


@pytest.mark.parametrize("shape", [BOX, Scalar(str, "id"), Pair(BOX, Scalar(int, "x"))])
async def test_two_columns_of_one_name_are_refused(db, shape):
    twice = Prepared(BOX.select(boxes.c.label.label("id")), shape)
    async with db.read() as tx:
        with pytest.raises(TypeError, match="several columns are called id"):
            await tx.all(twice)
        with pytest.raises(TypeError, match="several columns are called id"):
            BOX.all(await tx.execute(BOX.select(boxes.c.label.label("id"))))


@pytest.mark.parametrize("name", ["x", "made", "colour", "size", "content", "sealed", "data"])
def test_a_list_of_texts_is_compared_with_texts_alone(name):
    with pytest.raises(TypeError, match="a list of texts"):
        is_one_of(boxes.c[name], "values")


@dataclass(frozen=True)
class Label:
    label: str | None


@dataclass(frozen=True)
class Neighbours:
    id: str
    neighbours: int


@dataclass(frozen=True)
class Corner:
    corner: tuple[int, int] | None


async def test_records_of_one_column_are_like_all_others(db):
    label = Mapper(Label, boxes)
    neighbours = Mapper(Neighbours, boxes, looked_up={"neighbours": sa.literal(7)})
    corner = Mapper(Corner, boxes, groups=[CORNER])
    assert label.row(Label("a")) == {"label": "a"}
    assert neighbours.row(Neighbours("1", 7)) == {"id": "1"}
    assert corner.row(Corner((3, 4))) == {"x": 3, "y": 4}
    async with db.write() as tx:
        await tx.run(INSERT, **BOX.row(box("1", label="ab", corner=(3, 4))))
        assert await tx.all(Prepared(label.select(), label)) == [Label("ab")]
        assert await tx.all(Prepared(neighbours.select(), neighbours)) == [Neighbours("1", 7)]
        assert await tx.all(Prepared(corner.select(), corner)) == [Corner((3, 4))]


async def test_a_statement_whose_text_depends_on_its_parameters_is_refused(db):
    listed = Prepared(BOX.select().where(boxes.c.id.in_(sa.bindparam("ids", expanding=True))), BOX)
    async with db.read() as tx:
        with pytest.raises(TypeError, match="is_one_of"):
            await tx.all(listed, ids=["1"])


async def test_a_lost_connection_fails_one_transaction_and_is_not_used_again(fresh_postgres):
    db = await open_database(await fresh_postgres())
    ourselves = Prepared(sa.select(sa.func.pg_backend_pid()), Scalar(int))
    end = Prepared(sa.select(sa.func.pg_terminate_backend(sa.bindparam("pid", type_=sa.Integer))), Scalar(bool))
    with pytest.raises(StorageUnavailable):
        async with db.write() as tx:
            lost = await tx.one(ourselves)
            async with db.read() as other:
                assert await other.one(end, pid=lost)
            for _ in range(100):
                await tx.one(ourselves)
    async with db.write() as tx:
        assert await tx.one(ourselves) != lost
    await db.close()


@settings(max_examples=scaled(50, least=20), deadline=None)
@given(
    corner=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
    lasts=st.none() | st.timedeltas(),
    content=st.none() | st.lists(st.booleans() | st.text(), max_size=3),
    size=st.none() | st.sampled_from(Size),
)
def test_a_row_and_its_record_say_the_same(**fields: Any) -> None:
    row = BOX.row(box("1", **fields))
    assert row.keys() == {column.key for column in boxes.columns}
    names = [*reversed(row), "neighbours"]
    assert BOX.reader(names)([*reversed(row.values()), 0]) == box("1", **fields)


async def test_a_read_waits_for_a_lock_of_another_process_whether_core_or_the_driver_runs_it(tmp_path: Path) -> None:
    """In WAL mode, which servers use, readers seldom meet such a lock. In the mode of a new file they do."""
    path = tmp_path / "numbers.db"
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0}, isolation_level="AUTOCOMMIT")
    with closing(sqlite3.connect(path, isolation_level=None)) as beside, engine.connect() as connection:
        beside.execute("CREATE TABLE numbers (number INTEGER)")
        beside.execute("BEGIN EXCLUSIVE")
        beside.execute("INSERT INTO numbers VALUES (1)")
        reader, query = SqliteReader(connection), "SELECT number FROM numbers"
        by_core = asyncio.create_task(reader.execute(sa.text(query)))
        by_driver = asyncio.create_task(reader._fetch(query, ()))
        await asyncio.wait({by_core, by_driver}, timeout=0.1)
        assert not by_core.done()
        assert not by_driver.done()
        beside.execute("COMMIT")
        assert (await by_core).scalar_one() == 1
        assert await by_driver == [(1,)]
    engine.dispose()
