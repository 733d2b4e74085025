"""`blobhub audit`: who changed what, and what was refused."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import audit_pb2
from typer import Argument, Option

from blobhub_cli.command import LimitOption, Noun
from blobhub_cli.hub import Hub

noun = Noun("audit", "The audit log: every change, and every refusal.")
COLUMNS = ("create_time", "method", "resource", "code", "reason", "USER=user_id", "KEY=api_key_id")
PACKAGE = "blobhub.v1."

Parent = Annotated[str, Argument(help="An organization (`acme`) or a blob (`acme/pipeline`).")]


@noun.command("list", "blobhub audit list acme", "blobhub audit list acme --failures --method BlobService/CreateBlob --json")
async def list_all(
    hub: Hub,
    parent: Parent,
    user: Annotated[str, Option("--user", help="Entries of one user: `@ann`, or an id.")] = "",
    method: Annotated[str, Option("--method", help="Entries of one method: BlobService/CreateBlob.")] = "",
    failures: Annotated[bool, Option("--failures", help="Refusals only.")] = False,
    order_by: Annotated[str, Option("--order-by", help="As ListAuditEntries has it.")] = "",
    limit: LimitOption = 100,
) -> None:
    """List entries of the audit log."""
    method = f"{PACKAGE}{method}" if method and "." not in method else method
    request = audit_pb2.ListAuditEntriesRequest(
        parent=parent, user=user, method=method, failures_only=failures, order_by=order_by
    )
    await hub.out.table(hub.pages(hub.client.audit.ListAuditEntries, request, limit), COLUMNS, limit)
