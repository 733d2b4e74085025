"""Every command of the command line says what it takes, with examples that it takes so; the shell completes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flows
import pytest
from blobhub_cli.app import command
from blobhub_cli.drawing import mermaid
from blobhub_cli.failures import NEXT, CommandError, ExitCode
from command_line import CommandLine
from scoping import controls, inside

ROOT = Path(__file__).resolve().parent.parent


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands, each with the words that lead to it."""
    for name, inner in group.commands.items():
        if hasattr(inner, "commands"):
            yield from commands(inner, *words, name)
        else:
            yield (*words, name), inner


COMMANDS = dict(commands(command))


def examples(of: Any) -> list[str]:
    """The examples in a command's help."""
    heading, *lines = of.epilog.split("\n\n")
    assert heading == "Examples:"
    return [line.strip() for line in lines]


def parse(line: str) -> tuple[str, ...]:
    """Read a command line as the shell and the script do, without running it; the words of the command it is.

    Raises what is wrong with it.
    """
    script, *words = shlex.split(re.sub(r" [<>] .*", "", line))
    assert script == "blobhub"
    path: tuple[str, ...] = ()
    while path not in COMMANDS:
        path = (*path, words.pop(0))
    COMMANDS[path].make_context(" ".join(path), words)
    return path


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_has_help_and_examples_that_are_of_it(path: tuple[str, ...]) -> None:
    tested = COMMANDS[path]
    assert tested.help.endswith(".") or "\n" in tested.help
    assert examples(tested)
    assert {parse(example) for example in examples(tested)} == {path}
    for parameter in tested.params:
        assert getattr(parameter, "help", "") or parameter.name == "help", parameter.name
    assert {"as_json", "profile_name", "server_address"} <= {parameter.name for parameter in tested.params}


def test_what_to_do_next_names_commands_that_there_are() -> None:
    for step in NEXT.values():
        _, found, line = step.partition("blobhub ")
        if found:
            words = line.split()
            assert any(tuple(words[:length]) in COMMANDS for length in (1, 2, 3)), step


async def test_the_shell_completes_commands_and_options(config_home: Path) -> None:
    for words, expected in (
        ("blobhub bl", "blob"),
        ("blobhub blob cr", "create"),
        ("blobhub session object ", "put"),
        ("blobhub blob create --desc", "--description"),
    ):
        count = str(len(words.split(" ")) - 1)
        shell = CommandLine(config_home, _BLOBHUB_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=count)
        assert expected in (await shell.run()).stdout.split()
    source = await CommandLine(config_home, _BLOBHUB_COMPLETE="source_bash").run()
    assert "complete -o default -F" in source.stdout


async def test_help_and_mistakes_on_the_command_line(config_home: Path) -> None:
    hub = CommandLine(config_home)
    assert "Usage: blobhub blob create" in await hub("blob", "create", "--help")
    assert (await hub("--version")).startswith("blobhub ")
    assert "No such option" in await hub.refused(ExitCode.USAGE, "blob", "list", "acme", "--colour")
    assert "Missing argument" in await hub.refused(ExitCode.USAGE, "blob", "list")


def test_a_file_is_drawn_without_a_server() -> None:
    drawn = mermaid((ROOT / "demo" / "document_summary.json").read_text()).splitlines()
    assert drawn[0] == "flowchart TD"
    assert '  n0["Start"]' in drawn
    assert '  n1[("Document")]' in drawn
    assert any('-->|"large"|' in line for line in drawn)
    with pytest.raises(CommandError, match="no definition"):
        mermaid("[]")


def test_a_file_is_drawn_with_its_scopes_and_whatever_names_it_has() -> None:
    parts = inside("try", flows.component("work", "logic.code"), flows.component("inner", "flow.try"))
    parts += [flows.component("try", "flow.try"), *inside("inner", flows.component("\"]; %%{x: '<b>'}%%\n", "data.value"))]
    parts += [*inside("round", flows.component("round", "flow.try")), *inside("gone", flows.component("x" * 50, "flow.end"))]
    assert mermaid(flows.document(parts, controls("try.body work", "try.failure nobody"))).splitlines() == [
        "flowchart TD",
        '  subgraph gn2["try"]',
        '    n2{{"try"}}',
        '    n0["work"]',
        '    subgraph gn1["inner"]',
        '      n1{{"inner"}}',
        '      n3[("#quot;]; #37;#37;{x#58; #39;#lt;b#gt;#39;}#37;#37; ")]',
        "    end",
        "  end",
        f'  n5["{"x" * 37}..."]',
        '  n2 -->|"body"| n0',
    ]
