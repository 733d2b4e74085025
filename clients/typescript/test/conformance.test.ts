/** What tests/conformance asks of a client. `make clients` runs a server and the networks before it; without that, this is skipped. */

import {
  createRegistry,
  type DescFile,
  equals,
  fromBinary,
  fromJsonString,
  toBinary,
  toJsonString,
} from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { ErrorReason } from "../src/blobhub/v1/error_pb.js";
import { BlobHubError, connect, type Hub, Worker } from "../src/index.js";

const skip = process.env["CONFORMANCE_ADDRESS"] === undefined && "it is run by `make clients`";
const skipGolden = process.env["CONFORMANCE_GOLDEN"] === undefined && "it is run by `make clients`";
const WORKFLOW = "blobhub.compute.workflow";

function setting(name: string): string {
  return process.env[`CONFORMANCE_${name}`] ?? assert.fail(`CONFORMANCE_${name} is not set`);
}

/** A client of the server by one of its addresses: ADDRESS, LOSING, CUTTING. */
function open(t: TestContext, address: string, key: string | undefined = setting("KEY")): Hub {
  const hub = connect(setting(address), { key });
  t.after(() => {
    hub.close();
  });
  return hub;
}

async function refused(call: Promise<unknown>, code: Code, reason: ErrorReason, said: string): Promise<BlobHubError> {
  const error = await call.then(
    () => assert.fail(`${ErrorReason[reason]} was expected`),
    (failure: unknown) => failure,
  );
  assert.ok(error instanceof BlobHubError, String(error));
  assert.deepEqual([error.code, error.errorReason], [code, reason], error.message);
  assert.ok(error.message.includes(said), error.message);
  return error;
}

/** Make a session on the shared workflow. */
async function session(hub: Hub): Promise<string> {
  const made = await hub.createSession({ revision: `${setting("SHARED")}/${setting("BLOB")}@draft` });
  return made.session?.id ?? "";
}

test("pages over a thousand items", { skip }, async (t) => {
  const hub = open(t, "ADDRESS");
  const ids = new Set<string>();
  for await (const blob of hub.page(hub.listBlobs, { organization: setting("SHARED"), pageSize: 37 })) {
    assert.ok(!ids.has(blob.id), `${blob.alias} came twice`);
    ids.add(blob.id);
  }
  assert.equal(String(ids.size), setting("ITEMS"));
});

test("errors have reasons", { skip }, async (t) => {
  const hub = open(t, "ADDRESS");
  const organization = `${setting("ORGANIZATION")}-errors`;
  await hub.createOrganization({ alias: organization });
  const create = { organization, alias: "pipeline", type: WORKFLOW, requestId: crypto.randomUUID() };
  const { blob } = await hub.createBlob(create);
  const missing = `${organization}/nothing`;
  await refused(hub.getBlob({ blob: missing }), Code.NotFound, ErrorReason.NOT_FOUND, missing);
  const listing = hub.listBlobs({ organization, pageSize: -1 });
  const wrong = await refused(listing, Code.InvalidArgument, ErrorReason.INVALID_REQUEST, "page_size");
  assert.equal(wrong.violations.length, 1);
  const update = hub.updateBlob({ blob: blob?.id ?? "", etag: "stale" });
  const stale = await refused(update, Code.Aborted, ErrorReason.STALE_ETAG, "STALE_ETAG");
  assert.equal(stale.metadata["etag"], blob?.etag);
  const another = hub.createBlob({ ...create, alias: "another" });
  const reused = await refused(another, Code.AlreadyExists, ErrorReason.REQUEST_ID_REUSED, "REQUEST_ID_REUSED");
  assert.equal(reused.metadata["request_id"], create.requestId);
  const nobody = connect(setting("ADDRESS"));
  t.after(() => {
    nobody.close();
  });
  const unseen = nobody.getBlob({ blob: blob?.id ?? "" });
  await refused(unseen, Code.Unauthenticated, ErrorReason.UNAUTHENTICATED, "no key came with this call");
});

test("nothing is done twice when calls and answers are lost", { skip }, async (t) => {
  const hub = open(t, "LOSING");
  const organization = `${setting("ORGANIZATION")}-losing`;
  await hub.createOrganization({ alias: organization });
  for (let number = 0; number < 5; number += 1) {
    await hub.createBlob({ organization, alias: `blob-${number}`, type: WORKFLOW });
  }
  const made = await session(hub);
  assert.equal(await hub.result(made, "echo", { given: 2n ** 64n - 1n }), 2n ** 64n - 1n);
  const changes: Partial<Record<string, number>> = {};
  for await (const entry of hub.watch(hub.watchAuditEntries, { parent: organization, replayOnly: true })) {
    changes[entry.method] = (changes[entry.method] ?? 0) + 1;
  }
  assert.deepEqual(changes, {
    "blobhub.v1.OrganizationService/CreateOrganization": 1,
    "blobhub.v1.BlobService/CreateBlob": 5,
  });
  const { executions } = await hub.listExecutions({ blob: `${setting("SHARED")}/${setting("BLOB")}`, session: made });
  assert.equal(executions.length, 1);
});

test("a watch that is cut sees every event once", { skip }, async (t) => {
  const [direct, cut] = [open(t, "ADDRESS"), open(t, "CUTTING")];
  const watched = await session(direct);
  const start = async (): Promise<void> => {
    for (let count = 0; count < 3; count += 1)
      await direct.startExecution({ session: watched, spec: { definition: "loud" } });
  };
  await start();
  const seen: string[] = [];
  let ended = 0;
  for await (const event of cut.watch(cut.watchSession, { session: watched })) {
    seen.push(event.id);
    if (event.type !== "flow.exited") continue;
    ended += 1;
    if (ended === 2) await start();
    if (ended === 6) await direct.closeSession({ session: watched });
  }
  const all: string[] = [];
  for await (const event of direct.watch(direct.watchSession, { session: watched, replayOnly: true })) all.push(event.id);
  assert.deepEqual(seen, all);
});

test("a large model goes up and down", { skip }, async (t) => {
  const hub = open(t, "ADDRESS");
  const organization = `${setting("ORGANIZATION")}-model`;
  await hub.createOrganization({ alias: organization });
  await hub.createBlob({ organization, alias: "scorer", type: "blobhub.model.onnx" });
  const content = await readFile(setting("MODEL"));
  const revision = `${organization}/scorer@draft`;
  let [sent, received] = [0, 0];
  const read = (): AsyncIterable<Uint8Array> => createReadStream(setting("MODEL"));
  const stored = await hub.sendModel({ revision }, read, (bytes) => (sent = bytes));
  assert.deepEqual([Number(stored.model?.size), sent], [content.length, content.length]);
  const chunks = [];
  for await (const chunk of hub.receiveModel({ revision }, (bytes) => (received = bytes))) chunks.push(chunk);
  assert.ok(Buffer.concat(chunks).equals(content));
  assert.equal(received, content.length);
  await assert.rejects(hub.sendModel({ revision }, Buffer.from("no model")), (error) => {
    assert.ok(error instanceof BlobHubError, String(error));
    assert.equal(error.domain, "blobhub.model.onnx");
    assert.notEqual(error.reason, "");
    return true;
  });
});

test("a task whose worker was killed is done by another one, once", { skip }, async (t) => {
  const hub = open(t, "ADDRESS");
  const result = hub.result(await session(hub), "handoff", { given: 2n ** 53n + 1n });
  const [command = "", ...args] = setting("DYING").split(" ");
  const dying = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  const [begun] = (await once(dying.stdout, "data")) as [Buffer];
  dying.kill("SIGKILL");
  const worker = new Worker(hub, setting("SHARED"));
  worker.task("handoff", ({ input, attempt, idempotencyKey }) => ({ input, attempt, idempotencyKey }));
  const running = worker.run();
  try {
    assert.deepEqual(await result, { input: 2n ** 53n + 1n, attempt: 2, idempotencyKey: begun.toString().trim() });
  } finally {
    worker.stop();
    await running;
  }
});

/** A golden message, as a language writes it. */
interface Golden {
  type: string;
  wire: string;
  json: string;
}

test("messages of every type are read and written", { skip: skipGolden }, async () => {
  const stubs = new URL("../src/blobhub/v1/", import.meta.url);
  const files: DescFile[] = [];
  for (const name of (await readdir(stubs)).filter((each) => each.endsWith("_pb.js"))) {
    const module = (await import(new URL(name, stubs).href)) as Record<string, DescFile>;
    files.push(module[`file_blobhub_v1_${name.slice(0, -"_pb.js".length)}`] ?? assert.fail(name));
  }
  const registry = createRegistry(...files);
  const folder = setting("GOLDEN");
  for (const name of (await readdir(folder)).filter((each) => each.endsWith(".jsonl"))) {
    const lines = (await readFile(join(folder, name), "utf8")).trim().split("\n");
    const written = lines.map((line, index) => {
      const golden = JSON.parse(line) as Golden;
      const place = `${name}:${index + 1}: ${golden.type}`;
      const type = registry.getMessage(golden.type) ?? assert.fail(place);
      const wire = fromBinary(type, Buffer.from(golden.wire, "base64"));
      const json = fromJsonString(type, golden.json, { registry });
      assert.ok(equals(type, wire, json, { registry, unknown: true }), `${place}: wire and text are not the same`);
      const again = {
        wire: Buffer.from(toBinary(type, wire)).toString("base64"),
        json: toJsonString(type, json, { registry }),
      };
      return `${JSON.stringify({ type: golden.type, ...again })}\n`;
    });
    if (name === "python.jsonl") await writeFile(join(folder, "typescript.jsonl"), written.join(""));
  }
});
