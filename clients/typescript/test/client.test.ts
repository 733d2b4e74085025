import { clone, create } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import assert from "node:assert/strict";
import { createServer, type AddressInfo } from "node:net";
import { test } from "node:test";
import { ErrorReason } from "../src/blobhub/v1/error_pb.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../src/google/rpc/error_details_pb.js";
import {
  BlobHubError,
  connect,
  ExecutionError,
  fromJson,
  type Giveable,
  input,
  LogGapError,
  plain,
  services,
  toJson,
} from "../src/index.js";
import { sequences, start } from "./fake.js";

async function all<T>(from: AsyncIterable<T>): Promise<T[]> {
  const found = [];
  for await (const each of from) found.push(each);
  return found;
}

/** What a promise is rejected with. */
async function refusal(promise: Promise<unknown>): Promise<BlobHubError> {
  const error = await promise.then(
    () => assert.fail("it was not refused"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof BlobHubError, String(error));
  return error;
}

test("a safe call is made again, and a change under one request id", async (t) => {
  const [hub, fake] = await start(t, { failing: 2 });
  const { blob } = await hub.getBlob({ blob: "acme/pipeline" });
  assert.equal(blob?.alias, "pipeline");
  assert.equal(fake.requests.length, 3);
  Object.assign(fake, { failing: 2, requests: [] });
  const request = { alias: "pipeline" };
  await hub.createBlob(request);
  assert.equal(fake.requests.length, 3);
  assert.match(String(fake.requests[0]?.["requestId"]), /^[0-9a-f-]{36}$/);
  assert.deepEqual(new Set(fake.requests.map((each) => each["requestId"])).size, 1);
  assert.deepEqual(request, { alias: "pipeline" });
  assert.deepEqual(new Set(fake.keys), new Set(["Bearer bhk_key"]));
});

test("a key that is shown once is not asked for twice", async (t) => {
  const [hub, fake] = await start(t, { failing: 1 });
  assert.equal((await refusal(hub.createApiKey({}))).code, Code.Unavailable);
  assert.equal(fake.requests.length, 1);
});

test("what is not temporary is not tried again, and waiting ends with the deadline", async (t) => {
  const exhausted = (delay?: { seconds: bigint }): ConnectError =>
    new ConnectError(
      "no",
      Code.ResourceExhausted,
      undefined,
      delay && [{ desc: RetryInfoSchema, value: { retryDelay: delay } }],
    );
  const [hub, fake] = await start(t, { failing: 9, failure: exhausted() });
  await refusal(hub.getBlob({}));
  assert.equal(fake.requests.length, 1);
  fake.failure = exhausted({ seconds: 3600n });
  assert.equal((await refusal(hub.getBlob({}))).retryAfterMs, 3_600_000);
  assert.equal(fake.requests.length, 2);
});

test("an error is typed, and its text has reason and violations", async (t) => {
  const wrong = [{ field: "page_size", description: "must be positive" }, { description: "no such luck" }];
  const failure = new ConnectError("no such luck", Code.Aborted, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "STALE_ETAG", domain: "blobhub", metadata: { etag: "7" } } },
    { desc: BadRequestSchema, value: { fieldViolations: wrong } },
  ]);
  const [hub] = await start(t, { failing: 1, failure });
  const error = await refusal(hub.getBlob({}));
  assert.equal(error.message, "STALE_ETAG: no such luck; page_size: must be positive");
  assert.equal(error.errorReason, ErrorReason.STALE_ETAG);
  assert.equal(error.code, Code.Aborted);
  assert.equal(error.metadata["etag"], "7");
  const theirs = new BlobHubError({ code: Code.Aborted, message: "", reason: "STALE_ETAG", domain: "blobhub.model.onnx" });
  assert.equal(theirs.errorReason, ErrorReason.UNSPECIFIED);
});

test("pages are walked and left", async (t) => {
  const [hub, fake] = await start(t);
  const blobs = await all(hub.page(hub.listBlobs, { organization: "acme" }));
  assert.equal(blobs.map((blob) => blob.alias).join(""), "abc");
  assert.equal(fake.requests.length, 3);
  fake.requests = [];
  for await (const blob of hub.page(hub.listBlobs, {})) {
    assert.equal(blob.alias, "a");
    break;
  }
  assert.equal(fake.requests.length, 1);
});

test("a watch whose connection breaks is resumed after the last event", async (t) => {
  const [hub, fake] = await start(t, { events: sequences(5) });
  const events = await all(hub.watch(hub.watchSession, { session: "s", afterSessionSequence: 1n }));
  assert.deepEqual(
    events.map((event) => event.sessionSequence),
    [2n, 3n, 4n, 5n],
  );
  assert.ok(fake.requests.length >= 5);
});

test("leaving a watch ends its call", async (t) => {
  const [hub, fake] = await start(t, { events: sequences(3), cut: () => undefined });
  for await (const event of hub.watch(hub.watchSession, { session: "s" })) {
    assert.equal(event.sessionSequence, 1n);
    break;
  }
  while (fake.left === 0) await new Promise((resolve) => setTimeout(resolve, 5));
});

test("a gap in a log is a bug of the server", async (t) => {
  const events = sequences(3);
  events[1] = { sessionSequence: 3n };
  const [hub] = await start(t, { events });
  await assert.rejects(all(hub.watch(hub.watchSession, {})), (error) => {
    assert.ok(error instanceof LogGapError);
    assert.match(error.message, /sessionSequence 3 came after 1/);
    return true;
  });
});

test("only methods that watch are watched", async (t) => {
  const [hub] = await start(t);
  assert.throws(() => hub.watch(hub.downloadModel, {}), TypeError);
});

test("a run starts one execution, and answers plain values", async (t) => {
  const events = sequences(4);
  Object.assign(events[3] ?? {}, { payload: { case: "flowExited", value: { resultJson: '{"id": 9223372036854775807}' } } });
  const [hub, fake] = await start(t, { events, failing: 1 });
  assert.deepEqual(await hub.result("s", "workflow", { order: 2n ** 64n - 1n }), { id: 9223372036854775807n });
  const [first, second, watch] = fake.requests;
  assert.deepEqual(first, second);
  assert.match(String(first?.["requestId"]), /^[0-9a-f-]{36}$/);
  assert.deepEqual([watch?.["execution"], watch?.["afterExecutionSequence"]], ["e", 2n]);
  const failure = { reason: "SCRIPT_ERROR", message: "division by zero", line: 3 };
  Object.assign(events[3] ?? {}, { payload: { case: "flowError", value: { failure } } });
  await assert.rejects(hub.result("s", "workflow"), (error) => {
    assert.ok(error instanceof ExecutionError);
    assert.deepEqual([error.message, error.executionId, error.line], ["SCRIPT_ERROR: division by zero", "e", 3]);
    return true;
  });
});

test("a watch gives up where nobody listens", async () => {
  const hub = connect("127.0.0.1:1", { connectTimeoutMs: 200 });
  const error = await refusal(all(hub.watch(hub.watchSession, {})));
  assert.match(error.message, /^UNAVAILABLE: no server answers at 127.0.0.1:1 within 0.2 s; .* does it ask for TLS\?/);
  hub.close();
});

test("a watch gives up where somebody listens who does not answer", async (t) => {
  const silent = createServer();
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const address = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const hub = connect(address, { connectTimeoutMs: 200 });
  t.after(() => {
    hub.close();
    silent.close();
  });
  assert.equal((await refusal(all(hub.watch(hub.watchSession, {})))).code, Code.Unavailable);
});

test("a watch that was cut off gives up after a while, if it is told to", async (t) => {
  const [hub, fake] = await start(t, { events: sequences(3) }, { reconnectTimeoutMs: 150 });
  const error = await refusal(
    (async () => {
      for await (const _ of hub.watch(hub.watchSession, {})) fake.close();
    })(),
  );
  assert.match(error.message, /^UNAVAILABLE: no server answers at .* any more/);
});

test("a watch whose signal is aborted says so", async (t) => {
  const [hub] = await start(t, { events: sequences(3) });
  const stop = new AbortController();
  const watching = async (): Promise<void> => {
    for await (const _ of hub.watch(hub.watchSession, {}, { signal: stop.signal })) stop.abort();
  };
  assert.equal((await refusal(watching())).code, Code.Canceled);
});

test("a download goes on where it was, and its digest is compared", async (t) => {
  const [hub, fake] = await start(t);
  const told: [number, number][] = [];
  const chunks = await all(hub.receiveModel({ revision: "acme/scorer" }, (...progress) => told.push(progress)));
  assert.deepEqual(Buffer.concat(chunks), Buffer.from(fake.model));
  assert.deepEqual(told, [[3, 8], [6, 8], [8, 8]]); // prettier-ignore
  fake.requests = [];
  const part = await all(hub.receiveModel({ offset: 1n, length: 5n }));
  assert.deepEqual([...Buffer.concat(part)], [2, 3, 4, 5, 6]);
  assert.deepEqual(fake.requests.map((each) => [each["offset"], each["length"]]), [[1n, 5n], [4n, 2n]]); // prettier-ignore
  fake.digest = "0".repeat(64);
  await assert.rejects(all(hub.receiveModel({})), /does not have the digest/);
});

test("values are exact", () => {
  const values: [string, Giveable][] = [
    ["null", null],
    ["-0.0", -0],
    ["1.5", 1.5],
    ["9007199254740991", Number.MAX_SAFE_INTEGER],
    ["9007199254740992", 2n ** 53n],
    ["-9223372036854775808", -(2n ** 63n)],
    ["18446744073709551615", 2n ** 64n - 1n],
    ["1e+20", 1e20],
    ['{"a":[1,"<x>",true],"__proto__":{}}', JSON.parse('{"a": [1, "<x>", true], "__proto__": {}}') as Giveable],
    ['"#n12"', "#n12"],
    ['{"#n1":"\\\\u0023n1 \\"12345678901234567890\\""}', { "#n1": '\\u0023n1 "12345678901234567890"' }],
  ];
  for (const [text, value] of values) {
    assert.deepEqual(input("order", value), { alias: "order", form: { case: "valueJson", value: text } });
    assert.deepEqual(plain(undefined, text), value, text);
  }
  assert.equal(toJson({ a: undefined, b: 1 }), '{"b":1}');
  assert.equal(fromJson('"\\u0023n1"'), "#n1");
  assert.deepEqual(fromJson('{ "-12345678901234567890" : [-12345678901234567890, 1E2] }'), {
    "-12345678901234567890": [-12345678901234567890n, 100],
  });
  assert.throws(() => toJson(NaN), TypeError);
  const value = create(ValueSchema, {
    kind: { case: "structValue", value: { fields: { n: { kind: { case: "numberValue", value: 3 } }, none: {} } } },
  });
  assert.deepEqual(plain(clone(ValueSchema, value)), { n: 3, none: null });
  assert.equal(plain(undefined), null);
});

test("every list and every watch has one repeated field, and no two services a method of one name", () => {
  const methods = services.flatMap((service) => service.methods);
  assert.equal(new Set(methods.map((method) => method.localName)).size, methods.length);
  const walked = methods.filter((method) => /^(List|Watch)/.test(method.name) || method.name === "RunExecution");
  assert.ok(walked.length > 20);
  for (const method of walked) {
    assert.equal(method.output.fields.filter((field) => field.fieldKind === "list").length, 1, method.name);
  }
});
