import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type CallOptions, Code } from "@connectrpc/connect";
import { hostname } from "node:os";
import type { LeasedTask } from "./blobhub/v1/task_pb.js";
import { type Client, Retries, slept } from "./client.js";
import { BlobHubError } from "./errors.js";
import { type Giveable, type Plain, plain, toJson } from "./values.js";

/** How long one try of a call may take, and giving a task back. */
const CALL_MS = 20_000;
const RETURN_MS = 5_000;
const TRANSIENT: readonly Code[] = [Code.Unavailable, Code.DeadlineExceeded, Code.ResourceExhausted];

/** Thrown by a function whose task would fail again. `reason` is an upper-case word that workflows can tell apart. */
export class NotRetryable extends Error {
  override readonly name = "NotRetryable";

  constructor(
    message: string,
    readonly reason = "NOT_RETRYABLE",
  ) {
    super(message);
  }
}

/** A task, as its function gets it. */
export interface Task {
  readonly id: string;
  readonly queue: string;
  readonly input: Plain;
  /** Counts from 1. */
  readonly attempt: number;
  /** The same whenever this step is done, and for no other step. */
  readonly idempotencyKey: string;
  readonly executionId: string;
  /** Is aborted once nobody waits for the result any more. */
  readonly signal: AbortSignal;
  /** Say how far it has come, in up to 256 characters; it is told with the next renewal of the lease. */
  readonly reportProgress: (progress: string) => void;
}

/** Does a task. What it answers is the component's `result`. */
export type Handler = (task: Task) => Giveable | undefined | Promise<Giveable | undefined> | Promise<void>;

/** How a worker works. */
export interface WorkerConfig {
  /** How many tasks of each queue it does at a time; 1 unless set. */
  concurrency?: number;
  /** What operators see: the host and the process, unless set. */
  name?: string;
  /** How long a lease lasts that is not renewed; 30 s unless set. It is renewed three times as often. */
  leaseMs?: number;
  /** Is told of tasks that fail, and of leases that are tried again. */
  onError?: (error: unknown, task?: Task) => void;
}

/**
 * A program that does steps of workflows.
 *
 *     const worker = new Worker(hub, "acme", { concurrency: 4 });
 *     worker.task("resize", async (task) => ({ width: await resize(task.input) }));
 *     process.once("SIGTERM", () => worker.stop());
 *     await worker.run();
 *
 * What a function throws fails the task, which is tried again as the component's policy says unless it is NotRetryable. A task is done
 * at least once: one whose worker dies comes to another, with the same `idempotencyKey`. While a function works its lease is renewed, for
 * which it has to leave the event loop to others now and then.
 */
export class Worker {
  readonly #hub: Client;
  readonly #organization: string;
  readonly #config: Required<WorkerConfig>;
  readonly #handlers = new Map<string, Handler>();
  readonly #working = new Set<Promise<void>>();
  readonly #stopping = new AbortController();
  readonly #returning = new AbortController();

  constructor(hub: Client, organization: string, config: WorkerConfig = {}) {
    this.#hub = hub;
    this.#organization = organization;
    const name = `${hostname().slice(0, 80)}-${process.pid}-${crypto.randomUUID().slice(0, 8)}`;
    this.#config = { concurrency: 1, name, leaseMs: 30_000, onError: () => undefined, ...config };
  }

  /** Have a function do the tasks of a queue. */
  task(queue: string, handler: Handler): this {
    this.#handlers.set(queue, handler);
    return this;
  }

  /** Have `run` end: no further task is begun. */
  stop(): void {
    this.#stopping.abort();
  }

  /**
   * Work until `stop` is called. Throws a BlobHubError where the server refuses the worker. What was begun is finished; what is not done
   * after `graceMs` is given back.
   */
  async run({ graceMs = 30_000 }: { graceMs?: number } = {}): Promise<void> {
    try {
      await Promise.all([...this.#handlers].map(([queue, handler]) => this.#lease(queue, handler)));
    } finally {
      this.stop();
      const done = new AbortController();
      const working = Promise.all(this.#working).finally(() => {
        done.abort();
      });
      if (await slept(graceMs, done.signal)) this.#returning.abort();
      await working;
    }
  }

  /** Take tasks of a queue as they come, also across interruptions. */
  async #lease(queue: string, handler: Handler): Promise<void> {
    const { concurrency, name, leaseMs, onError } = this.#config;
    const { signal } = this.#stopping;
    const again = new Retries(Infinity);
    const request = {
      queue: `${this.#organization}/${queue}`,
      worker: name,
      maximumTasks: concurrency,
      leaseDuration: durationFromMs(leaseMs),
    };
    for (let told = 0; ; told = 0) {
      try {
        for await (const { tasks } of this.#hub.leaseTasks(request, { signal })) {
          again.reset();
          for (const leased of tasks) this.#begin(queue, handler, leased);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof BlobHubError) || !TRANSIENT.includes(error.code)) throw error;
        onError(error);
        told = error.retryAfterMs;
      }
      if (!(await again.pause(told, Infinity, signal))) return;
    }
  }

  #begin(queue: string, handler: Handler, leased: LeasedTask): void {
    const working = this.#work(queue, handler, leased).finally(() => this.#working.delete(working));
    this.#working.add(working);
  }

  /** Do one task, and say what came of it; or give it back, when time is up. */
  async #work(queue: string, handler: Handler, leased: LeasedTask): Promise<void> {
    const { lease, idempotencyKey } = leased;
    const [cancelled, ended] = [new AbortController(), new AbortController()];
    let progress = "";
    const task: Task = {
      id: leased.task?.id ?? "",
      queue,
      input: plain(leased.input, leased.inputJson),
      attempt: leased.task?.attempt ?? 0,
      idempotencyKey,
      executionId: leased.task?.executionId ?? "",
      signal: cancelled.signal,
      reportProgress: (text) => {
        progress = text.slice(0, 256);
      },
    };
    void this.#renew(lease, () => progress, cancelled, ended.signal);
    const doing = (async () => handler(task))().then(
      (value) => () => this.#complete(lease, task, value ?? null),
      (error: unknown) => () => this.#fail(lease, task, error),
    );
    const leaving = [cancelled, this.#returning].map(({ signal }) => aborted(signal, ended.signal));
    const tell = await Promise.race([doing, ...leaving]);
    ended.abort();
    if (cancelled.signal.aborted) return;
    if (tell) return tell();
    cancelled.abort();
    // Where it does not come through, the lease runs out.
    await this.#hub.returnTask({ lease }, { timeoutMs: RETURN_MS }).catch(this.#config.onError);
  }

  /** Renew a lease while its task is done; end that when the server says so, or when somebody else has the task. */
  async #renew(lease: string, progress: () => string, cancelled: AbortController, ended: AbortSignal): Promise<void> {
    while (await slept(this.#config.leaseMs / 3, ended)) {
      const answer = await this.#say((options) => this.#hub.extendLease({ lease, progress: progress() }, options)).catch(
        this.#config.onError,
      );
      if (!ended.aborted && answer?.stop !== false) {
        cancelled.abort();
        return;
      }
    }
  }

  async #complete(lease: string, task: Task, value: Giveable): Promise<void> {
    try {
      const result = { case: "resultJson", value: toJson(value) } as const;
      await this.#say((options) => this.#hub.completeTask({ lease, form: result }, options));
    } catch (refused) {
      await this.#fail(lease, task, new NotRetryable(`the result is refused: ${text(refused)}`, "INVALID_RESULT"));
    }
  }

  async #fail(lease: string, task: Task, error: unknown): Promise<void> {
    this.#config.onError(error, task);
    const [retryable, reason] = error instanceof NotRetryable ? [false, error.reason] : [true, word(error)];
    const request = { lease, reason, message: text(error).slice(0, 1024), retryable };
    await this.#say((options) => this.#hub.failTask(request, options)).catch(this.#config.onError);
  }

  /**
   * Make a call until it is answered, for as long as a lease lasts; nothing where the lease does not hold any more. Throws a BlobHubError
   * for a request that is not taken.
   */
  async #say<Answer>(call: (options: CallOptions) => Promise<Answer>): Promise<Answer | undefined> {
    const until = performance.now() + Math.max(this.#config.leaseMs, CALL_MS);
    for (const again = new Retries(Infinity); ;) {
      try {
        return await call({ timeoutMs: CALL_MS });
      } catch (error) {
        if (!(error instanceof BlobHubError) || error.code === Code.InvalidArgument) throw error;
        this.#config.onError(error);
        if (!TRANSIENT.includes(error.code) || !(await again.pause(error.retryAfterMs, until))) return undefined;
      }
    }
  }
}

/** Settles when a signal is aborted, unless something has ended before. */
function aborted(signal: AbortSignal, ended: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    const end = (): void => {
      resolve(undefined);
    };
    signal.addEventListener("abort", end, { signal: ended });
    if (signal.aborted) end();
  });
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The name of a class of errors as a reason: `TypeError` is TYPE_ERROR. */
function word(error: unknown): string {
  const name = error instanceof Error ? error.name : "FAILED";
  return (
    name
      .replace(/[^A-Za-z0-9_]/g, "_")
      .replace(/(?<=[a-z0-9])(?=[A-Z])/g, "_")
      .toUpperCase()
      .slice(0, 63) || "FAILED"
  );
}
