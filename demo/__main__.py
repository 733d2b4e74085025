"""`make demo`: a server from nothing, driven as a client would: a real document goes through a
workflow, schedules fire it, a worker does a step of one, and a model is asked about it, by the client and by a workflow.

`python -m demo [DOCUMENT]`; the default is the project's own README.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from blobhub.v1 import (
    blob_pb2,
    definition_pb2,
    event_pb2,
    execution_pb2,
    firing_pb2,
    organization_pb2,
    revision_pb2,
    schedule_pb2,
    session_object_pb2,
    session_pb2,
)
from blobhub_client import Client, connect, reason
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from demo import model

ROOT = Path(__file__).resolve().parent.parent
DEFINITION = ROOT / "demo" / "document_summary.json"
DEFINITIONS = (DEFINITION, *(ROOT / "demo" / f"document_{name}.json" for name in ("words", "kind")))
"""The second one waits for a worker, and the last one asks a model, which come later."""
MAX_BYTES = 900_000
"""A size that fits into an execution's input, also when it is quoted as JSON."""

FIRINGS = 3
"""How many schedules are due in the next seconds. Cron expressions have minutes, so each of these fires once."""
FIRST_SECONDS = 2.0
"""How long after it was created the first of them is due."""
SCHEDULED_DOCUMENT = {"type": "template", "template": "# {{ schedule.alias }}\nIt is {{ nominal_time }}."}

COLOURS = {"flow": "bold cyan", "processor": "green", "session": "magenta"}

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def read_document(path: Path) -> str:
    """The document's text. Exits with a clear message when it cannot be read."""
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        sys.exit(f"demo: cannot read {path}: {error.strerror}")
    except UnicodeDecodeError:
        sys.exit(f"demo: {path} is not text in UTF-8")
    if len(data) > MAX_BYTES:
        sys.exit(f"demo: {path} has {len(data)} bytes; an execution takes up to {MAX_BYTES}")
    return text


async def prepare(hub: Client) -> str:
    """Make an organization, a workflow blob, a published revision of it, and a session on that; return its id."""
    await hub.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    await hub.blobs.CreateBlob(
        blob_pb2.CreateBlobRequest(organization="acme", alias="pipeline", type="blobhub.compute.workflow")
    )
    step("created", "organization acme, workflow blob acme/pipeline with an empty draft")

    draft = "acme/pipeline@draft"
    for path in DEFINITIONS:
        alias, document = path.stem, path.read_text()
        put = definition_pb2.PutDefinitionRequest(revision=draft, alias=alias, document=document)
        await hub.definitions.PutDefinition(put)
        checked = await hub.definitions.CheckDefinition(
            definition_pb2.CheckDefinitionRequest(revision=draft, definition=alias)
        )
        step("uploaded", f"definition {alias}, {len(document)} bytes, {len(checked.problems)} problems found")

    commit = await hub.revisions.CommitRevision(
        revision_pb2.CommitRevisionRequest(revision=draft, comment="Summarise a document")
    )
    step("committed", f"digest {commit.revision.digest[:16]}…")
    snapshot = await hub.revisions.PublishRevision(
        revision_pb2.PublishRevisionRequest(revision=commit.revision.id, label="first")
    )
    step("published", f"acme/pipeline@{snapshot.revision.number}")

    opened = await hub.sessions.CreateSession(
        session_pb2.CreateSessionRequest(revision="acme/pipeline@1", alias="demo-session")
    )
    step("opened", f"session {opened.session.id}")
    return opened.session.id


async def run(hub: Client, session_id: str, definition: str, text: str) -> event_pb2.Event:
    """Run a definition on the document, printing the events as they come; return the last one."""
    given = execution_pb2.ExecutionInput(alias="document", value=Value(string_value=text))
    spec = execution_pb2.ExecutionSpec(definition=definition, input_data=[given])
    request = execution_pb2.RunExecutionRequest(session=session_id, spec=spec)
    event = event_pb2.Event()
    async for event in hub.run(request):
        show(event)
    return event


def to_spec(*, cron_expression: str = "", invocation_time: str = "") -> schedule_pb2.ScheduleSpec:
    """A schedule that fires the workflow, recurring or once, on a document of its own."""
    repeat = "RECURRING_CRON" if cron_expression else "ONE_TIME"
    spec = schedule_pb2.ScheduleSpec(
        repeat=schedule_pb2.ScheduleRepeat.Value(f"SCHEDULE_REPEAT_{repeat}"),
        cron_expression=cron_expression,
        invocation_time=invocation_time,
        timezone="UTC",
        invocation_target=schedule_pb2.InvocationTarget(revision="acme/pipeline@default", definition="document_summary"),
    )
    spec.input_data.add(alias="document").value.struct_value.update(SCHEDULED_DOCUMENT)
    return spec


async def schedule(hub: Client) -> None:
    """Make a scheduler blob with a schedule for every minute, and some that are due once, in the seconds to come."""
    await hub.blobs.CreateBlob(
        blob_pb2.CreateBlobRequest(organization="acme", alias="clock", type="blobhub.compute.scheduler")
    )
    draft = "acme/clock@draft"
    minutely = to_spec(cron_expression="* * * * *")
    await hub.schedules.CreateSchedule(schedule_pb2.CreateScheduleRequest(revision=draft, alias="minutely", spec=minutely))
    preview = await hub.schedules.PreviewSchedule(
        schedule_pb2.PreviewScheduleRequest(revision=draft, schedule="minutely", count=2)
    )
    next_times = ", ".join(occurrence.local_time for occurrence in preview.occurrences)
    step("scheduled", f"acme/clock/minutely: {preview.description}; next at {next_times}")
    for number in range(1, FIRINGS + 1):
        due = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=FIRST_SECONDS + number - 1)
        once = to_spec(invocation_time=due.isoformat())
        request = schedule_pb2.CreateScheduleRequest(revision=draft, alias=f"once-{number}", spec=once)
        await hub.schedules.CreateSchedule(request)
        step("scheduled", f"acme/clock/once-{number}: once, at {once.invocation_time}Z")


async def watch(hub: Client) -> None:
    """Print what fires, and how that ends, until all that was due once has."""
    left = {f"once-{number}" for number in range(1, FIRINGS + 1)}
    async for firing in hub.watch_firings("acme/clock"):
        show_firing(firing)
        if firing.HasField("end_time") or firing.status != firing_pb2.FIRING_STATUS_SUCCESS:
            left.discard(firing.schedule_alias)
        if not left:
            return


def show_firing(firing: firing_pb2.Firing) -> None:
    """Print a line of the log of firings: that a schedule fired, or how what it started has ended."""
    if firing.HasField("end_time"):
        when, what, colour = firing.end_time, "ended", "green"
        about = execution_pb2.ExecutionState.Name(firing.execution_state).removeprefix("EXECUTION_STATE_")
    else:
        when, what, colour = firing.fire_time, "fired", "bold cyan"
        about = firing_pb2.FiringStatus.Name(firing.status).removeprefix("FIRING_STATUS_")
        late = firing.fire_time.ToDatetime() - firing.nominal_time.ToDatetime()
        about += f"  [dim]{late / timedelta(milliseconds=1):.1f} ms after its time[/] {firing.message}"
    console.print(f"  {clock(when)} {firing.sequence:>3}  [{colour}]{what:<18}[/] {firing.schedule_alias:<24} {about}")


async def ask(hub: Client, session_id: str, name: str, text: str) -> None:
    """Store a model, show what it is, and ask it about the document and a definition; then have the workflow ask it."""
    stored = await model.upload(hub, console)
    step("described", model.describe(stored))
    step("asked", f"{name} is {await model.kind_of(hub, text.encode())}")
    step("asked", f"{DEFINITION.name} is {await model.kind_of(hub, DEFINITION.read_text().encode())}")
    event = await run(hub, session_id, "document_kind", text)
    step("answered", f"the workflow says that {name} is {plain(event.flow_exited.result)}")


async def work(hub: Client, session_id: str, address: str, key: str, text: str) -> None:
    """Start a definition that waits for a worker, and then a worker, a process of its own, which does that step."""
    running = asyncio.create_task(run(hub, session_id, "document_words", text))
    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "demo.worker", address, key, cwd=ROOT)
    step("started", f"a worker with 4 at a time, process {worker.pid}")
    try:
        event = await running
    finally:
        worker.terminate()
        await worker.wait()
    step("counted", f"the worker says {plain(event.flow_exited.result)}")


def step(what: str, about: str) -> None:
    """Print a line about what the client did."""
    console.print(f"  [bold]{what:<10}[/] {about}")


def show(event: event_pb2.Event) -> None:
    """Print an event on a line."""
    colour = "bold red" if event.type.endswith("error") else COLOURS[event.type.partition(".")[0].partition("_")[0]]
    when, who = clock(event.create_time), event.processor.processor_name
    console.print(f"  {when} {event.execution_sequence:>3}  [{colour}]{event.type:<18}[/] {who:<24} {particulars(event)}")


def clock(time: Timestamp) -> str:
    """A time of the day, to the millisecond."""
    return time.ToDatetime().strftime("%H:%M:%S.%f")[:-3]


def particulars(event: event_pb2.Event) -> str:
    """What an event has to say beyond its type."""
    payload = event.WhichOneof("payload")
    if payload == "processor_exited":
        took = event.processor_exited.elapsed.ToMicroseconds() / 1000
        return f"→ {event.processor_exited.route}" + (f"  [dim]{took:.1f} ms[/]" if took else "")
    if payload == "processor_output":
        return plain(event.processor_output.value)
    if payload in ("flow_error", "processor_error"):
        failure = getattr(event, payload).failure
        return f"{failure.reason}: {failure.message}"
    return f"{event.flow_exited.steps} steps" if payload == "flow_exited" else ""


async def result(hub: Client, session_id: str) -> None:
    """Print the session object that the workflow wrote."""
    answer = await hub.session_objects.GetSessionObject(
        session_object_pb2.GetSessionObjectRequest(session=session_id, alias="summary")
    )
    console.rule("session object `summary`", align="left")
    console.print_json(plain(answer.session_object.value))


def plain(value: Value) -> str:
    """A value as JSON; protobuf's numbers are all doubles, and whole ones are written as such here."""
    text = json_format.MessageToJson(value, indent=None)
    return json.dumps(
        json.loads(
            text,
            parse_float=lambda number: int(float(number)) if float(number).is_integer() else float(number),
        )
    )


def tour() -> None:
    """Print how to see the same with grpcurl."""
    console.rule("the same with grpcurl, on a server that `make serve` leaves running", align="left")
    tour_lines = re.search(r"<!-- tour -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    console.print(tour_lines[1].rstrip() if tour_lines else "see README.md", markup=False, soft_wrap=True)


async def start_server(data_dir: str) -> tuple[asyncio.subprocess.Process, str, str]:
    """Start a server of our own on a free port; return it, its address and the administrator's key."""
    environment = os.environ | {
        "BLOBHUB_LISTEN": "127.0.0.1:0",
        "BLOBHUB_HTTP_LISTEN": "127.0.0.1:0",
        "BLOBHUB_DATA_DIR": data_dir,
        "BLOBHUB_LOG_LEVEL": "warning",
    }
    for name in ("BLOBHUB_DATABASE_URL", "BLOBHUB_ADMIN_KEY"):
        environment.pop(name, None)
    command = str(Path(sys.executable).parent / "blobhub-server")
    server = await asyncio.create_subprocess_exec(command, "serve", env=environment, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    said = ""
    while "serves on" not in said:
        line = (await server.stdout.readline()).decode()
        if not line:
            sys.exit("demo: the server did not start; it has said why above")
        said += line
    key, address = re.search(r"bhk_\w+", said), re.search(r"serves on (\S+)", said)
    assert key is not None
    assert address is not None
    return server, address[1], key[0]


async def main(document: Path) -> None:
    """Run the demo."""
    text = read_document(document)
    with tempfile.TemporaryDirectory() as folder:
        console.print("starting a server with data of its own …")
        server, address, key = await start_server(folder)
        try:
            console.rule(f"a server on {address}, SQLite and local files", align="left")
            async with connect(address, key) as hub:
                session_id = await prepare(hub)
                console.rule(f"running on {document.name}, {len(text)} characters", align="left")
                await run(hub, session_id, "document_summary", text)
                await result(hub, session_id)
                console.rule("schedules that fire it, as they do", align="left")
                await schedule(hub)
                await watch(hub)
                console.rule("a worker that does a step", align="left")
                await work(hub, session_id, address, key, text)
                console.rule("a model that tells the kind of a file", align="left")
                await ask(hub, session_id, document.name, text)
            tour()
        except grpc.aio.AioRpcError as error:
            sys.exit(f"demo: {error.code().name} {reason(error)}: {error.details()}")
        finally:
            server.terminate()
            await server.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] else ROOT / "README.md"))
