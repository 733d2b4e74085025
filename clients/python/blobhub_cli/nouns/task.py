"""`blobhub task`: queues of tasks, and the workers that do them."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import task_pb2
from typer import Argument, Option

from blobhub_cli.command import LimitOption, Noun
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import word_number
from blobhub_cli.plain import plain, readable

noun = Noun("task", "Tasks: steps of workflows that workers do, in queues.")
COLUMNS = ("state", "COMPONENT=component_id", "attempt", "worker", "progress", "create_time", "deadline", "id")
STATE = task_pb2.TaskState.DESCRIPTOR

Queue = Annotated[str, Argument(help="`acme/resize`: the organization and the queue.")]


@noun.command("list", "blobhub task list acme/resize", "blobhub task list acme/resize --state leased")
async def list_all(
    hub: Hub,
    queue: Queue,
    state: Annotated[str, Option("--state", help="Those that are waiting, leased, completed, failed …")] = "",
    limit: LimitOption = 50,
) -> None:
    """List the tasks of a queue, the oldest first; those that have ended are kept for an hour."""
    request = task_pb2.ListTasksRequest(queue=queue, state=word_number(STATE, state, "state"))
    await hub.out.table(hub.pages(hub.client.tasks.ListTasks, request, limit), COLUMNS, limit)


@noun.command("queue", "blobhub task queue acme/resize", "blobhub task queue acme/resize --follow")
async def queue(
    hub: Hub, queue: Queue, follow: Annotated[bool, Option("--follow", "-f", help="Show it whenever it changes.")] = False
) -> None:
    """Show how much waits in a queue, and who works on it."""
    if not follow:
        found = (await hub.call(hub.client.tasks.GetQueue, task_pb2.GetQueueRequest(queue=queue))).queue
        hub.out.record(found)
        return
    async for message in hub.client.tasks.StreamQueue(task_pb2.StreamQueueRequest(queue=queue)):
        if hub.out.as_json:
            hub.out.json(plain(message.queue))
        else:
            hub.out.line(_line(message.queue))


def _line(queue: task_pb2.Queue) -> str:
    workers = ", ".join(f"{each.name} ({each.leased_tasks})" for each in queue.workers) or "nobody"
    since = f" since {readable(queue, 'oldest_waiting_time')}" if queue.HasField("oldest_waiting_time") else ""
    return f"{queue.waiting_tasks} wait{since}; {queue.leased_tasks} are done by {workers}"
