"""Log lines: exceptions are told, values that a database quotes are not."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa
import structlog
from blobhub_server import logs
from blobhub_server.config import Settings
from blobhub_server.db.engine import Database
from blobhub_server.db.opening import open_database
from disguises import Scanner
from marked import made

notes = sa.Table(
    "test_texts",
    sa.MetaData(),
    sa.Column("text", sa.Text, unique=True),
    sa.Column("number", sa.Integer, nullable=False),
)


@pytest.fixture
async def db(database_url: str):
    opened = await open_database(database_url)
    async with opened.write() as tx:
        await tx.execute(sa.schema.CreateTable(notes))
    yield opened
    await opened.close()


async def failing(db: Database, *rows: dict[str, object]) -> Exception | None:
    """What inserting some rows fails with."""
    try:
        async with db.write() as tx:
            for row in rows:
                await tx.execute(notes.insert(), row)
    except Exception as error:
        return error
    return None


async def test_no_error_of_a_database_shows_what_was_to_be_stored(db: Database) -> None:
    value = made()
    taken = await failing(db, *[{"text": value, "number": 1}] * 2)
    absent = await failing(db, {"text": value, "number": None})
    for error in (taken, absent):
        assert "IntegrityError" in logs.format_error(error)
        assert not Scanner({value: "value"}).data("log", f"{error} {logs.format_error(error)}".encode())


@pytest.mark.parametrize("wrong", [{"number": "text"}, {"number": 2**80}, {"text": "\0"}], ids=["type", "range", "nul"])
async def test_nor_what_the_driver_says_of_a_value_that_it_cannot_encode(db: Database, wrong: dict[str, object]) -> None:
    """SQLite takes some of them."""
    value = made()
    row = {"text": value, "number": 1} | {name: f"{value}{it}" if isinstance(it, str) else it for name, it in wrong.items()}
    error = await failing(db, row)
    assert not Scanner({value: "value"}).data("log", (logs.format_error(error) if error else "").encode())


def test_other_exceptions_are_told_with_what_led_to_them() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        error.add_note("a note")
        told = logs.format_error(error)
    order = [told.index(said) for said in ("KeyError: 'first'", "which led to", "ValueError: second", "a note")]
    assert order == sorted(order)
    assert __file__ in told


@pytest.mark.parametrize("json_lines", [False, True])
@pytest.mark.usefixtures("logs_set_back")
async def test_log_lines_tell_exceptions_so(db: Database, json_lines: bool, capsys: pytest.CaptureFixture[str]) -> None:
    value = made()
    error = await failing(db, *[{"text": value, "number": 1}] * 2)
    logs.set_up(Settings(log_json=json_lines))
    structlog.get_logger().error("internal_error", exc_info=error)
    said = capsys.readouterr().err
    assert "IntegrityError" in said
    assert value[12:] not in said


@pytest.mark.usefixtures("logs_set_back")
def test_what_libraries_log_is_told_so_as_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    logs.set_up(Settings())

    class Quoting(Exception):
        sqlstate = "22000"

    try:
        raise Quoting("the value is " + "".join(["sword", "fish"]))
    except Quoting:
        logging.getLogger("library").exception("failed")
    said = capsys.readouterr().err
    assert "SQLSTATE 22000" in said
    assert "swordfish" not in said
