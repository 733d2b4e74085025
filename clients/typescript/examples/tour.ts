/**
 * The tour: a workflow from nothing, run and watched.
 *
 *     KEY=bhk_… npm run tour -- 127.0.0.1:7443 ../../demo/document_summary.json
 */

import { readFile } from "node:fs/promises";
import { connect, type Hub, input, type Plain, plain } from "../src/index.js";

/** Make an organization, a workflow blob, a published revision of it, and a session on that; answer the session's id. */
async function prepare(hub: Hub, organization: string, document: string): Promise<string> {
  await hub.createOrganization({ alias: organization });
  const { blob } = await hub.createBlob({ organization, alias: "pipeline", type: "blobhub.compute.workflow" });
  console.log("created", blob?.type, blob?.alias);

  const draft = `${organization}/pipeline@draft`;
  await hub.putDefinition({ revision: draft, alias: "document_summary", body: { case: "document", value: document } });
  const check = await hub.checkDefinition({ revision: draft, subject: { case: "definition", value: "document_summary" } });
  if (!check.runnable)
    throw new Error(`the definition cannot run: ${check.problems.map((each) => each.message).join("; ")}`);
  console.log("uploaded document_summary, which can run");

  const commit = await hub.commitRevision({ revision: draft, comment: "Summarise a document" });
  const snapshot = await hub.publishRevision({ revision: commit.revision?.id ?? "", label: "first" });
  console.log("published snapshot", String(snapshot.revision?.number));

  const { session } = await hub.createSession({ revision: `${organization}/pipeline@1` });
  return session?.id ?? "";
}

async function tour(hub: Hub, document: string): Promise<void> {
  const session = await prepare(hub, process.env["ORGANIZATION"] ?? "acme", document);
  const spec = { definition: "document_summary", inputData: [input("document", "# Title\nSome words.")] };
  for await (const event of hub.run({ session, spec })) {
    console.log("event", Number(event.executionSequence), event.type, event.processor?.processorId ?? "-");
  }
  const { sessionObject } = await hub.getSessionObject({ session, alias: "summary" });
  const summary = plain(sessionObject?.value, sessionObject?.valueJson) as Record<string, Plain>;
  console.log("summary", summary["kind"], summary["sections"], summary["beginning"]);
}

const [address, path] = process.argv.slice(2);
if (address === undefined || path === undefined) throw new Error("usage: tour ADDRESS DEFINITION");
const hub = connect(address, { key: process.env["KEY"] });
try {
  await tour(hub, await readFile(path, "utf8"));
} finally {
  hub.close();
}
