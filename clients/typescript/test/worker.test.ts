import { Code, ConnectError } from "@connectrpc/connect";
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { BlobHubError, type Handler, NotRetryable, Worker, type WorkerConfig } from "../src/index.js";
import { type Fake, type Request, start } from "./fake.js";

/** Have a worker do tasks until the server has got calls of a kind, so many; those calls. */
async function work(
  t: TestContext,
  set: Partial<Fake>,
  kind: string,
  count: number,
  handler: Handler,
  config: WorkerConfig = {},
): Promise<Request[]> {
  const [hub, fake] = await start(t, set);
  const worker = new Worker(hub, "acme", { name: "test", ...config }).task("resize", handler);
  const running = worker.run();
  const calls = (): Request[] => fake.requests.filter((each) => each["$typeName"] === `blobhub.v1.${kind}Request`);
  while (calls().length < count) await new Promise((resolve) => setTimeout(resolve, 5));
  worker.stop();
  await running;
  return calls();
}

test("a worker does tasks and says what came of them", async (t) => {
  const seen: unknown[] = [];
  const tasks: [string, string][] = [
    ["a", '{"width": 9007199254740993}'],
    ["b", "2"],
  ];
  const calls = await work(t, { tasks }, "CompleteTask", 2, ({ input, attempt, id }) => {
    seen.push([input, attempt, id]);
    return id === "a" ? { width: 9007199254740993n } : undefined;
  });
  assert.deepEqual(seen, [[{ width: 9007199254740993n }, 1, "a"], [2, 1, "b"]]); // prettier-ignore
  assert.deepEqual(
    calls.map(({ lease, form }) => [lease, (form as { value: string }).value]).sort(),
    [["a", '{"width":9007199254740993}'], ["b", "null"]], // prettier-ignore
  );
});

test("what a function throws fails its task", async (t) => {
  const errors: unknown[] = [];
  const tasks: [string, string][] = [["a", "1"], ["b", "2"], ["c", "3"]]; // prettier-ignore
  const handler: Handler = ({ id }) => {
    if (id === "a") throw new TypeError("no width");
    if (id === "b") throw new NotRetryable("no such picture", "GONE");
    return NaN;
  };
  const calls = await work(t, { tasks }, "FailTask", 3, handler, { onError: (error) => errors.push(error) });
  assert.deepEqual(calls.map(({ lease, reason, message, retryable }) => [lease, reason, message, retryable]).sort(), [
    ["a", "TYPE_ERROR", "no width", true],
    ["b", "GONE", "no such picture", false],
    ["c", "INVALID_RESULT", "the result is refused: NaN is no JSON", false],
  ]);
  assert.equal(errors.length, 3);
});

test("a worker goes on when calls are lost", async (t) => {
  const calls = await work(t, { tasks: [["a", "1"]], failing: 2 }, "CompleteTask", 1, () => "done");
  assert.equal((calls[0]?.["form"] as { value: string }).value, '"done"');
});

test("a lease is renewed with what was reported, and a task that was cancelled is left", async (t) => {
  let reason = "";
  const handler: Handler = async ({ reportProgress, signal }) => {
    reportProgress("reading");
    await new Promise((resolve) => {
      signal.addEventListener("abort", resolve);
    });
    reason = "cancelled";
  };
  const calls = await work(t, { tasks: [["a", "1"]], cancelled: true }, "ExtendLease", 1, handler, { leaseMs: 60 });
  assert.deepEqual([calls[0]?.["lease"], calls[0]?.["progress"]], ["a", "reading"]);
  assert.equal(reason, "cancelled");
});

test("a worker that is stopped finishes what was begun", async (t) => {
  const [hub, fake] = await start(t, { tasks: [["a", "1"]] });
  const worker = new Worker(hub, "acme");
  worker.task("resize", async () => {
    worker.stop();
    await new Promise((resolve) => setTimeout(resolve, 20));
    return "done";
  });
  await worker.run();
  assert.deepEqual(fake.requests.at(-1)?.["form"], { case: "resultJson", value: '"done"' });
});

test("what is not done in time is given back", async (t) => {
  const [hub, fake] = await start(t, { tasks: [["a", "1"]] });
  const worker = new Worker(hub, "acme");
  let left = false;
  worker.task("resize", async ({ signal }) => {
    signal.addEventListener("abort", () => (left = true));
    worker.stop();
    await new Promise((resolve) => setTimeout(resolve, 60_000).unref());
  });
  await worker.run({ graceMs: 20 });
  assert.deepEqual(
    [fake.requests.at(-1)?.["$typeName"], fake.requests.at(-1)?.["lease"]],
    ["blobhub.v1.ReturnTaskRequest", "a"],
  );
  assert.ok(left);
});

test("a worker that is refused says so", async (t) => {
  const [hub] = await start(t, { failing: 1, failure: new ConnectError("no", Code.PermissionDenied) });
  const running = new Worker(hub, "acme").task("resize", () => 1).run();
  await assert.rejects(running, (error) => error instanceof BlobHubError && error.code === Code.PermissionDenied);
});
