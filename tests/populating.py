"""Organizations with something in every table, and all that a database holds."""

from __future__ import annotations

import acme
import flows
import tasks
from blobhub_server.db.schema import metadata
from calling import ask
from databases import select
from served import WORKFLOW, Api
from signals import waits

REMEMBERED = {"audit_entries", "audit_head", "requests", "servers"}
"""Tables that are not about what is there now."""


async def everything(url: str) -> dict[str, list[str]]:
    """All rows of all tables, but for the times that keys were used."""
    found = {}
    for name, table in metadata.tables.items():
        if name not in REMEMBERED:
            columns = ", ".join(column.name for column in table.c if column.name != "last_used_time")
            found[name] = sorted(repr(row) for row in await select(url, f"SELECT {columns} FROM {table}"))
    return found


async def populated(api: Api, organization: str) -> None:
    """Make an organization with something in every table."""
    await acme.organization(api, organization)
    for alias in ("one", "two", "notes"):
        kind, reference = ("stranger.notes" if alias == "notes" else WORKFLOW), f"{organization}/{alias}"
        await acme.blob(api, f"{reference}-former", kind)
        await acme.update_blob(api, f"{reference}-former", alias=alias)
        for target in (reference, f"{reference}@draft"):
            await ask(api, "CreateMetadata", parent=target, key="key", value={"number_value": 1})
        await held(api, reference, "blob.revisions")
        if kind == WORKFLOW:
            await api.put(flows.steps(2), revision=f"{reference}@draft")
            session = await acme.session(api, f"{reference}@draft")
            await ask(api, "StartExecution", session=session.id, spec={"definition": "workflow"})
            await api.put(waits(("go", "")), revision=f"{reference}@draft", alias="waits")
            await ask(api, "StartExecution", session=session.id, spec={"definition": "waits"})
            await ask(api, "SendSignal", blob=reference, name="kept")
            await api.put(tasks.calls(), revision=f"{reference}@draft", alias="calls")
            await tasks.start(api, session.id, definition="calls")
            await ask(api, "PutSessionObject", session=session.id, alias="a", value={"number_value": 1})
        else:
            await ask(api, "PutNote", revision=f"{reference}@draft", name="one", text="A note.")
            run = {"workflow": f"{organization}/one@draft", "definition": "workflow"}
            await ask(api, "RunNote", revision=f"{reference}@draft", name="one", **run)
    await held(api, organization, "organization.blobs")
    await acme.rename_organization(api, organization, f"{organization}-renamed")


async def held(api: Api, scope: str, limit: str) -> None:
    """Give an organization or a blob a member, a key, a credential and a limit."""
    await acme.member(api, scope, "ann")
    await acme.key(api, scope)
    await ask(api, "CreateCredential", parent=scope, alias="c", type="test", body={"user": "nobody"})
    await ask(api, "UpdateLimit", parent=scope, name=limit, value=50)
