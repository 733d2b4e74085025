"""`blobhub definition`: definitions of workflows, as files and in drafts."""

from __future__ import annotations

import asyncio
import difflib
import json
from pathlib import Path
from typing import Annotated

from blobhub.v1 import definition_pb2, execution_pb2
from typer import Argument, Option

from blobhub_cli.command import EtagOption, LimitOption, Noun
from blobhub_cli.drawing import mermaid
from blobhub_cli.failures import CommandError, ExitCode
from blobhub_cli.following import follow
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import STDIN, read_text, split_last, word_number, write_bytes
from blobhub_cli.plain import readable
from blobhub_cli.starting import (
    BlobOption,
    InputOption,
    InputsOption,
    StepLimitOption,
    TimeoutOption,
    alias_for,
    check,
    ensure_draft,
    make_spec,
    open_session,
    put,
    start,
)

noun = Noun("definition", "Definitions: the JSON documents that workflows run.")
COLUMNS = ("alias", "size", "digest", "update_time", "id")
PROBLEM_COLUMNS = ("severity", "type", "component_id", "path", "line", "column", "message")
POLL_SECONDS = 0.2
GRAPH = definition_pb2.DefinitionGraphFormat.DESCRIPTOR
PUSH = "blobhub definition push FILE REVISION/ALIAS"
FORM = "REVISION/ALIAS, such as acme/pipeline@draft/summary"

Definition = Annotated[str, Argument(help="`acme/pipeline@3/summary`, or its id.")]
File = Annotated[str, Argument(help="The file with the document; - for standard input.")]


@noun.command("check", "blobhub definition check summary.json", "blobhub definition check summary.json --blob acme/pipeline")
async def check_file(hub: Hub, file: File, blob: BlobOption = "") -> int:
    """Say all that is wrong with a document; exit code 7 if it cannot run."""
    document = read_text(file)
    return _tell_problems(hub, await check(hub, await ensure_draft(hub, file, blob), document))


def _tell_problems(hub: Hub, found: definition_pb2.CheckDefinitionResponse) -> ExitCode:
    if hub.out.as_json:
        hub.out.record(found)
    elif found.problems:
        headings = [column.upper().replace("_ID", "") for column in PROBLEM_COLUMNS]
        hub.out.rows(headings, [[readable(each, path) for path in PROBLEM_COLUMNS] for each in found.problems])
    if not hub.out.as_json:
        hub.out.line("it can run" if found.runnable else "it cannot run", "green" if found.runnable else "red")
    return ExitCode.DONE if found.runnable else ExitCode.DIFFERENT


@noun.command("push", "blobhub definition push summary.json acme/pipeline@draft/summary")
async def push(
    hub: Hub,
    file: File,
    definition: Annotated[str, Argument(help="Where to: `acme/pipeline@draft/summary`.")],
    etag: EtagOption = "",
) -> None:
    """Store a document in a draft, byte for byte."""
    revision, alias = split_last(definition, FORM)
    answer = await put(hub, revision, alias, read_text(file), etag)
    hub.out.record(answer.definition)


@noun.command("pull", "blobhub definition pull acme/pipeline@3/summary > summary.json")
async def pull(
    hub: Hub, definition: Definition, to: Annotated[str, Option("--to", "-o", help="The file to write.")] = STDIN
) -> None:
    """Fetch a document, byte for byte."""
    write_bytes(to, (await _fetch(hub, definition)).document.encode())


async def _fetch(hub: Hub, definition: str) -> definition_pb2.GetDefinitionResponse:
    request = definition_pb2.GetDefinitionRequest(definition=definition)
    return await hub.call(hub.client.definitions.GetDefinition, request)


@noun.command("diff", "blobhub definition diff summary.json acme/pipeline@3/summary")
async def diff(hub: Hub, file: File, definition: Definition) -> int:
    """Show how a file differs from a stored document, apart from spaces and line ends; exit code 7 if it does."""
    here, there = _lines(read_text(file)), _lines((await _fetch(hub, definition)).document)
    found = list(difflib.unified_diff(there, here, definition, file, lineterm=""))
    if hub.out.as_json:
        hub.out.json({"different": bool(found), "diff": found})
    for line in found:
        hub.out.line(line, {"+": "green", "-": "red", "@": "cyan"}.get(line[0], ""))
    return ExitCode.DIFFERENT if found else ExitCode.DONE


def _lines(document: str) -> list[str]:
    try:
        return json.dumps(json.loads(document), indent=2, ensure_ascii=False).splitlines()
    except ValueError:
        return document.splitlines()


@noun.command(
    "graph",
    "blobhub definition graph acme/pipeline@3/summary --format dot",
    "blobhub definition graph acme/pipeline@3/summary --execution 01997e3c-1d7f-7c2b-9a53-0f3f8c1e7a55",
    "blobhub definition graph summary.json",
)
async def graph(
    hub: Hub,
    definition: Annotated[str, Argument(help="`acme/pipeline@3/summary`, or its id; or a file.")] = "",
    form: Annotated[str, Option("--format", help="mermaid or dot.")] = "mermaid",
    execution: Annotated[
        str, Option("--execution", help="Draw what this execution of the definition has done; its own, without one.")
    ] = "",
) -> None:
    """Draw a definition, and, when asked, what an execution of it has done. A file is drawn as it is, for Mermaid."""
    request = definition_pb2.GetDefinitionGraphRequest(
        definition=definition, execution=execution, format=word_number(GRAPH, form, "format")
    )
    if definition == STDIN or Path(definition).is_file():  # noqa: ASYNC240  nothing else is going on
        if execution or request.format != definition_pb2.DEFINITION_GRAPH_FORMAT_MERMAID:
            raise CommandError("a file is drawn for Mermaid, without an execution", next_step=f"store it first: {PUSH}")
        drawn = mermaid(read_text(definition))
        if hub.out.as_json:
            hub.out.json({"text": drawn})
        hub.out.line(drawn)
        return
    request.definition = definition or await _definition_of(hub, execution)
    answer = await hub.call(hub.client.definitions.GetDefinitionGraph, request)
    hub.out.done(answer, answer.text.removesuffix("\n"))
    if answer.omitted_components or answer.omitted_connections:
        omitted = f"{answer.omitted_components:,} components and {answer.omitted_connections:,} connections"
        hub.out.note(f"{omitted} are not in it: Mermaid shows no more. --format dot has all.")


async def _definition_of(hub: Hub, execution: str) -> str:
    """The reference of the definition that an execution runs."""
    if not execution:
        raise CommandError("which definition?", next_step="name one, or an execution with --execution")
    request = execution_pb2.GetExecutionRequest(execution=execution)
    found = (await hub.call(hub.client.executions.GetExecution, request)).execution
    return f"{found.revision_id}/{found.definition_alias}"


@noun.command("list", "blobhub definition list acme/pipeline@draft")
async def list_all(hub: Hub, revision: Annotated[str, Argument(help="The revision.")], limit: LimitOption = 100) -> None:
    """List the definitions of a revision."""
    request = definition_pb2.ListDefinitionsRequest(revision=revision)
    await hub.out.table(hub.pages(hub.client.definitions.ListDefinitions, request, limit), COLUMNS, limit)


@noun.command("delete", "blobhub definition delete acme/pipeline@draft/summary")
async def delete(hub: Hub, definition: Definition, etag: EtagOption = "") -> None:
    """Remove a definition from a draft."""
    request = definition_pb2.DeleteDefinitionRequest(definition=definition, etag=etag)
    hub.out.done(await hub.call(hub.client.definitions.DeleteDefinition, request), f"deleted {definition}")


@noun.command(
    "run",
    "blobhub definition run summary.json -i document=@README.md",
    "blobhub definition run summary.json --inputs @inputs.json --watch-file",
)
async def run(
    hub: Hub,
    file: File,
    blob: BlobOption = "",
    given: InputOption = None,
    inputs: InputsOption = "",
    seconds: TimeoutOption = 0,
    step_limit: StepLimitOption = 0,
    watch_file: Annotated[bool, Option("--watch-file", help="Run it again each time the file has changed.")] = False,
) -> int:
    """Run a document from a file, without any set-up: what it needs is made, in an organization of your own."""
    if watch_file and file == STDIN:
        raise CommandError("standard input does not change: --watch-file needs a file")
    spec = make_spec(alias_for(file), given, inputs, seconds, step_limit)
    draft = await ensure_draft(hub, file, blob)
    session = await open_session(hub, draft)
    while True:
        seen = _changed(file) if watch_file else 0
        document = read_text(file)
        found = await check(hub, draft, document)
        if found.runnable:
            await put(hub, draft, spec.definition, document)
            code = await follow(hub, await start(hub, session, spec))
        else:
            code = _tell_problems(hub, found)
        if not watch_file:
            return code
        hub.out.note(f"runs again when {file} changes; Ctrl-C ends it")
        while _changed(file) == seen:  # noqa: ASYNC110  a file that changes rings no bell
            await asyncio.sleep(POLL_SECONDS)


def _changed(file: str) -> int:
    """When a file was changed; 0 while there is none, as when an editor is about to replace it."""
    try:
        return Path(file).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
