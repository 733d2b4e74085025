"""`blobhub revision`: revisions of blobs: draft, commit, snapshot."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import revision_pb2
from typer import Argument, Option

from blobhub_cli.command import EtagOption, LimitOption, Noun
from blobhub_cli.failures import ExitCode
from blobhub_cli.hub import Hub
from blobhub_cli.inputs import word_number
from blobhub_cli.plain import readable

noun = Noun("revision", "Revisions of a blob: drafts are edited, commits are frozen, snapshots are published.")
COLUMNS = ("phase", "number", "label", "comment", "create_time", "id")

Revision = Annotated[str, Argument(help="`acme/pipeline@draft`, `acme/pipeline@3`, `acme/pipeline@latest`, or an id.")]
Blob = Annotated[str, Argument(help="`acme/pipeline`, or its id.")]
Comment = Annotated[str, Option("--comment", "-m", help="What it is about.")]


@noun.command("draft", "blobhub revision draft acme/pipeline", "blobhub revision draft acme/pipeline --base 3 -m 'Faster'")
async def draft(
    hub: Hub,
    blob: Blob,
    base: Annotated[str, Option("--base", help="What it starts from: `3`, `latest` or an id; the default revision.")] = "",
    comment: Comment = "",
) -> None:
    """Begin a draft, with the content of another revision."""
    request = revision_pb2.CreateRevisionRequest(blob=blob, base_revision=base, comment=comment)
    hub.out.record((await hub.call(hub.client.revisions.CreateRevision, request)).revision)


@noun.command("get", "blobhub revision get acme/pipeline", "blobhub revision get acme/pipeline@3")
async def get(hub: Hub, revision: Revision) -> None:
    """Show a revision; of a blob, its default one."""
    request = revision_pb2.GetRevisionRequest(revision=revision)
    hub.out.record((await hub.call(hub.client.revisions.GetRevision, request)).revision)


@noun.command("list", "blobhub revision list acme/pipeline", "blobhub revision list acme/pipeline --phase snapshot")
async def list_all(
    hub: Hub,
    blob: Blob,
    phase: Annotated[str, Option("--phase", help="draft, commit or snapshot.")] = "",
    order_by: Annotated[str, Option("--order-by", help="create_time, or `create_time desc`.")] = "",
    limit: LimitOption = 100,
) -> None:
    """List the revisions of a blob."""
    number = word_number(revision_pb2.RevisionPhase.DESCRIPTOR, phase, "phase")
    request = revision_pb2.ListRevisionsRequest(blob=blob, phase=number, order_by=order_by)
    await hub.out.table(hub.pages(hub.client.revisions.ListRevisions, request, limit), COLUMNS, limit)


@noun.command("update", "blobhub revision update acme/pipeline@draft -m 'Faster, and shorter'")
async def update(
    hub: Hub,
    revision: Revision,
    comment: Annotated[str, Option("--comment", "-m", help="The comment.")],
    etag: EtagOption = "",
) -> None:
    """Change the comment of a revision."""
    request = revision_pb2.UpdateRevisionRequest(revision=revision, comment=comment, etag=etag)
    request.update_mask.paths.append("comment")
    hub.out.record((await hub.call(hub.client.revisions.UpdateRevision, request)).revision)


@noun.command("commit", "blobhub revision commit acme/pipeline@draft -m 'Summarise a document'")
async def commit(hub: Hub, revision: Revision, comment: Comment = "", etag: EtagOption = "") -> None:
    """Freeze a draft, once its content is valid."""
    request = revision_pb2.CommitRevisionRequest(revision=revision, comment=comment, etag=etag)
    hub.out.record((await hub.call(hub.client.revisions.CommitRevision, request)).revision)


@noun.command("publish", "blobhub revision publish acme/pipeline@latest --label first")
async def publish(
    hub: Hub,
    revision: Revision,
    label: Annotated[str, Option("--label", help="What people call it.")] = "",
    keep_default: Annotated[bool, Option("--keep-default", help="Leave the blob's default revision as it is.")] = False,
    etag: EtagOption = "",
) -> None:
    """Publish a commit as a snapshot, with the next number."""
    request = revision_pb2.PublishRevisionRequest(revision=revision, label=label, keep_default=keep_default, etag=etag)
    hub.out.record((await hub.call(hub.client.revisions.PublishRevision, request)).revision)


@noun.command("discard", "blobhub revision discard acme/pipeline@draft")
async def discard(hub: Hub, revision: Revision, etag: EtagOption = "") -> None:
    """Throw a draft or a commit away."""
    request = revision_pb2.DiscardRevisionRequest(revision=revision, etag=etag)
    hub.out.done(await hub.call(hub.client.revisions.DiscardRevision, request), f"discarded {revision}")


@noun.command("diff", "blobhub revision diff acme/pipeline@draft acme/pipeline@3")
async def diff(
    hub: Hub, revision: Revision, base: Annotated[str, Argument(help="The revision that it is compared with.")]
) -> int:
    """Show which parts of the content differ; exit code 7 if any do."""
    request = revision_pb2.CompareRevisionsRequest(revision=revision, base_revision=base)
    answer = await hub.call(hub.client.revisions.CompareRevisions, request)
    if hub.out.as_json:
        hub.out.record(answer)
    else:
        rows = [[readable(change, path) for path in ("kind", "name", "base_size", "size")] for change in answer.changes]
        if rows:
            hub.out.rows(["CHANGE", "NAME", "BYTES BEFORE", "BYTES"], rows)
        hub.out.note(f"{answer.unchanged} parts are the same{'; there are more changes' if answer.truncated else ''}")
    return ExitCode.DIFFERENT if answer.changes else ExitCode.DONE


@noun.command("dependents", "blobhub revision dependents acme/pipeline@3")
async def dependents(hub: Hub, revision: Revision) -> None:
    """Show what keeps a revision from being discarded."""
    request = revision_pb2.GetRevisionDependentsRequest(revision=revision)
    answer = await hub.call(hub.client.revisions.GetRevisionDependents, request)
    if hub.out.as_json:
        hub.out.record(answer)
    else:
        hub.out.rows(
            ["KIND", "COUNT", "IDS"], [[each.kind, str(each.count), ", ".join(each.ids)] for each in answer.dependents]
        )
