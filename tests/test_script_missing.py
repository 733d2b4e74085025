"""What a script asks of its sandbox in vain, as check warns of it: modules that are not there, and to sleep."""

from __future__ import annotations

import sys

import flows
import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2, execution_pb2
from blobhub_server.workflow.code.missing import MODULES, missing_uses
from calling import ask
from runs import run
from served import Api

pytestmark = pytest.mark.either_database

SLEEP = "time.sleep is not available: use flow.delay"


@pytest.mark.parametrize(
    ("source", "places"),
    [
        ("import time\ntime.sleep(1)", [(2, 1)]),
        ("import json, time as t\nif 1:\n    t.sleep(1)", [(3, 5)]),
        ("from time import sleep\nsleep(1)", [(2, 1)]),
        ("from time import (time, sleep as wait)\nx = time()\nwait(x)", [(3, 1)]),
        ("import time; time.sleep(1)", [(1, 14)]),
        ("if 1: import time\ntime.sleep(1)", [(2, 1)]),
        ("import time\nwait = time.sleep\nwait(1)", [(2, 8)]),
        ("import time\nfor i in [1]:\n  time.sleep(1); time.sleep(2)", [(3, 3), (3, 18)]),
    ],
)
def test_a_script_that_sleeps_is_warned_of_where_it_does(source: str, places: list[tuple[int, int]]) -> None:
    assert [(use.line, use.column, use.message) for use in missing_uses(source)] == [(*place, SLEEP) for place in places]


def test_a_sleep_of_asyncio_is_named_for_what_it_is() -> None:
    source = "import asyncio\nasync def f():\n    await asyncio.sleep(1)"
    assert [use.message for use in missing_uses(source)] == ["asyncio.sleep is not available: use flow.delay"]


@pytest.mark.parametrize(
    "source",
    [
        "import time\nx = time.time()",
        "x = 'import time; time.sleep(1)'  # import time",
        "class Clock:\n  def sleep(self, n):\n    return n\ntime = Clock()\ntime.sleep(1)",
        "import time\nclock = inputs.clock\nclock.time.sleep(1)",
        "from time import sleep\nnaps = {'sleep': 1}\ninputs.sleep(1)",
        "try:\n  1/0\nexcept Exception as e:\n  raise ValueError('no') from e\nimport json",
        "import os.path\nfrom os import path",
        "from . import x",
        "import",
        "from",
        "from time",
        "import ,",
        "from time import",
    ],
)
def test_what_is_not_certain_is_not_warned_of(source: str) -> None:
    assert missing_uses(source) == []


@pytest.mark.parametrize(
    ("source", "module", "column"),
    [
        ("import requests", "requests", 8),
        ("import json, numpy as np", "numpy", 14),
        ("from threading import Thread", "threading", 6),
        ("import urllib.request", "urllib", 8),
        ("try:\n  import yaml\nexcept ImportError:\n  yaml = None", "yaml", 10),
    ],
)
def test_a_module_that_is_not_there_is_warned_of_with_those_there_are(source: str, module: str, column: int) -> None:
    (use,) = missing_uses(source)
    assert use.message.startswith(f"the sandbox has no module {module!r}; it has asyncio, base64, ")
    assert use.column == column


@pytest.mark.parametrize(
    ("source", "places"),
    [
        (r"x = '\ud83d\ude00'", [(1, 5)]),
        ('x = 1\ny = [1, "a\\uDC00"]', [(2, 9)]),
        (r"x = u'\U0000d800'", [(1, 5)]),
        (r"x = '\\\ud800'", [(1, 5)]),
        (r"x = r'\ud800' b'\ud800' '\\ud800' '\u00e9' '\U0001f600'", []),
        (r"x = 1  # \ud800", []),
    ],
)
def test_half_of_a_character_is_warned_of_where_it_is_written(source: str, places: list[tuple[int, int]]) -> None:
    assert [(use.line, use.column) for use in missing_uses(source)] == places
    assert all("half of a surrogate pair" in use.message for use in missing_uses(source))


async def test_check_knows_the_modules_that_a_sandbox_has(api: Api) -> None:
    names = sorted({name for name in sys.stdlib_module_names if not name.startswith("_")} | MODULES | {"requests", "numpy"})
    tried = "".join(
        f"try:\n    import {name}\n    found.append('{name}')\nexcept ImportError:\n    pass\n" for name in names
    )
    session = await api.session(flows.code(f"found = []\n{tried}set_data_output('result', found)"))
    ended = await run(api, session)
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED, ended.failure
    assert {item.string_value for item in ended.result.list_value.values} == MODULES


async def test_a_script_that_is_warned_of_can_be_run_and_fails_where_it_comes_to_that(api: Api) -> None:
    source = "import time\nif inputs.given:\n    time.sleep(1)"
    session = await api.session(flows.code(source))
    checked = await ask(api, "CheckDefinition", revision=DRAFT, document=flows.code(source))
    assert checked.runnable
    assert definition_pb2.DEFINITION_PROBLEM_TYPE_NOT_IN_SANDBOX in [problem.type for problem in checked.problems]
    for given, reason in ((0, ""), (1, "SCRIPT_ERROR")):
        assert (await run(api, session, given=given)).failure.reason == reason
