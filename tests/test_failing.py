"""Small inputs that once failed, in `failing/`, each with what is right for it. Their kinds have tests of their own.

A file of JSON is a definition, or cases to check and put; `run.py` tries it. A script needs a server of its own, as it says;
the two that need two servers, or a database to disturb, are run by hand, and have a test that does the same.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from runs import FAILING
from served import served

TESTS = Path(__file__).resolve().parent
RIGHT: dict[str, tuple[str, ...]] = {
    "check-runnable-put-refused.jsonl": (
        "duplicate key: check: runnable False",
        "duplicate key: put: INVALID_ARGUMENT INVALID_DEFINITION",
        "byte order mark: check: runnable False",
        "byte order mark: put: INVALID_ARGUMENT INVALID_DEFINITION",
        "lone surrogate: check: runnable False",
        "lone surrogate: put: INVALID_ARGUMENT INVALID_DEFINITION",
        "position is a list: check: runnable False",
        "position is a list: put: INVALID_ARGUMENT INVALID_DEFINITION",
    ),
    "delay-10-to-the-400.json": (
        "check: runnable False ['must hold integers from",
        "put: INVALID_ARGUMENT INVALID_DEFINITION",
    ),
    "expression-stops-the-server.py": ("state 6 component 'work' failed: takes more work than",),
    "join-all-in-a-loop-keeps-old-tokens.json": (
        "check: runnable True [\"the cycle of 'id3', 'failed_once', 'again'",
        "run: state 6 JOIN_STARVED join 'all' lacks tokens of: id2-success-all; left over are tokens of:",
    ),
    "join-all-on-both-routes-of-one-component.json": (
        "check: runnable False",
        "it can never fire: it needs the routes 'success', 'failure' of 'a'",
        "run: FAILED_PRECONDITION DEFINITION_NOT_RUNNABLE",
    ),
    "join-first-in-a-loop-ends-as-completed.json": ("check: runnable True", "run: state 5   result 6.0"),
    "price-times-factor.json": ("check: runnable True", "run: state 5   result 3.0"),
    "script-output-10-to-the-400.json": ("run: state 6 SCRIPT_OUTPUT", "list: [(6, 'SCRIPT_OUTPUT')]"),
    "script-result-nested-60-deep.json": ("run: state 6 SCRIPT_OUTPUT", "watch: 6", "list: [(6, 'SCRIPT_OUTPUT')]"),
    "set-result-on-a-route-that-leads-nowhere.json": (
        "no connection carries the route '5'",
        "run: state 6 ROUTE_LEADS_NOWHERE",
    ),
    "size-counts-bytes.json": ("run: state 5   result true",),
    "switch-route-from-input-is-a-number.json": ("check: runnable True", "run: state 6 INVALID_INPUT"),
    "switch-route-that-leads-nowhere.json": (
        "no connection carries the route 'typo'",
        "run: state 6 ROUTE_LEADS_NOWHERE",
    ),
    "switch-when-is-not-a-boolean.json": ("is never True or False", "run: state 6 EXPRESSION_TYPE"),
    "watch-batch-over-4-mib.py": ("watch: all", "client: all", "list: fine", "run with 1 MiB input: fine"),
}
"""What each file prints, among other things and in this order."""
BY_HAND = {
    "frozen-server-blocks-the-other.py": (
        "test_frozen.py",
        "test_a_server_that_freezes_in_a_transaction_holds_up_the_changes_of_the_other_for_a_while_only",
    ),
    "postgresql-gone-for-three-seconds.py": ("test_outages.py", "test_executions_outlast_connections_that_are_cut"),
}
"""The scripts that no test runs, with the module and the test that does what they do."""
FOREIGN = (
    "INVALID_REQUEST",
    "UNDECODABLE_REQUEST",
    "UNIMPLEMENTED",
    "Protocol message",
    "INTERNAL",
    "UNKNOWN ",
    "Traceback",
)
"""What is said of a request that is of another contract, and of trouble."""


async def run(tmp_path: Path, *arguments: str) -> str:
    """Run a script of the folder beside a server of its own; return what it prints."""
    async with served(tmp_path, None) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=FAILING,
            env=os.environ | {"ADDRESS": server.address, "KEY": server.admin_key},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


def test_every_input_that_failed_has_what_is_right_for_it() -> None:
    helpers = {"run.py", "small.py"}
    assert {path.name for path in FAILING.iterdir() if path.is_file()} - helpers == RIGHT.keys() | BY_HAND.keys()
    for module, test in BY_HAND.values():
        assert f"async def {test}(" in (TESTS / module).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RIGHT)
async def test_an_input_that_failed_turns_out_right(tmp_path: Path, name: str) -> None:
    printed = await run(tmp_path, *([] if name.endswith(".py") else ["run.py"]), name)
    assert not [word for word in FOREIGN if word in printed], printed
    place = 0
    for words in RIGHT[name]:
        place = printed.find(words, place)
        assert place >= 0, (words, printed)
