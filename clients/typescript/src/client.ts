import { type DescMethod, type MessageInitShape, type MessageShape, type DescMessage } from "@bufbuild/protobuf";
import { anyUnpack, MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { type CallOptions, Code, createClient, type Transport } from "@connectrpc/connect";
import type { Event } from "./blobhub/v1/event_pb.js";
import { type RunExecutionRequestSchema } from "./blobhub/v1/execution_pb.js";
import { type Operation, OperationState } from "./blobhub/v1/operation_pb.js";
import { BlobHubError, ExecutionError } from "./errors.js";
import { type Services, services } from "./services_pb.js";
import { type Giveable, input, type Plain, plain } from "./values.js";

const MIN_DELAY_MS = 100;
const MAX_DELAY_MS = 10_000;
/** How often at most a run or a watch looks whether a server is there before it begins. */
const MAX_REACH_DELAY_MS = 1_000;

/** How a server is called. */
export interface Config {
  /** An API key or a token, sent with every call; without one, calls are anonymous. */
  key?: string | undefined;
  /** Of a call that answers once and that has no `timeoutMs`; 30 s unless set. */
  callTimeoutMs?: number;
  /** How often a call that is safe to repeat is made at most; 5 unless set. */
  attempts?: number;
  /** How long a run or a watch tries to reach a server before it begins; 15 s unless set. */
  connectTimeoutMs?: number;
  /** How long one that was cut off tries to resume; for ever unless set. */
  reconnectTimeoutMs?: number;
}

/** The server sent an item that does not follow the one before it, which is a bug of the server. */
export class LogGapError extends Error {
  override readonly name = "LogGapError";
}

/** What the one repeated field of a message holds. */
export type ItemOf<Answer> = {
  [Name in Exclude<keyof Answer, "$unknown">]: Answer[Name] extends readonly (infer Item)[] ? Item : never;
}[Exclude<keyof Answer, "$unknown">];

type Fields = Record<string, unknown>;
type Unary = (request: object, options?: CallOptions) => Promise<object>;
type Streaming = (request: object, options?: CallOptions) => AsyncIterable<object>;

/** Methods by the functions that call them, for those who are handed a function. */
const described = new WeakMap<object, DescMethod>();

/**
 * The methods of all services, and what stubs cannot do. Errors of calls are BlobHubErrors. It needs a transport of Connect, and
 * nothing of Node: in a browser it takes one that the browser can do.
 */
// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging, @typescript-eslint/no-empty-object-type
export interface Client extends Services {}
// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
export class Client {
  readonly #url: URL;
  readonly #config: Required<Omit<Config, "key" | "reconnectTimeoutMs">> & Config;

  /** `url` is where the transport leads to, for messages. */
  constructor(transport: Transport, url: string, config: Config = {}) {
    this.#url = new URL(url);
    this.#config = { callTimeoutMs: 30_000, attempts: 5, connectTimeoutMs: 15_000, ...config };
    for (const service of services) {
      const stubs = createClient(service, transport) as unknown as Record<string, Unary & Streaming>;
      for (const method of service.methods) {
        const stub = stubs[method.localName];
        if (!stub) continue;
        const call = this.#method(method, stub);
        described.set(call, method);
        (this as unknown as Fields)[method.localName] = call;
      }
    }
  }

  #method(method: DescMethod, stub: Unary & Streaming): (request: object, options?: CallOptions) => unknown {
    switch (method.methodKind) {
      case "unary":
        return (request, options) => this.#callOnce(method, stub, request, options);
      case "client_streaming":
        return async (requests, options) => {
          try {
            return await stub(requests, this.#withKey(options));
          } catch (error) {
            throw BlobHubError.from(error, options?.signal);
          }
        };
      default:
        return (request, options) => this.#stream(stub, request, options);
    }
  }

  #withKey(options: CallOptions = {}): CallOptions {
    const headers = new Headers(options.headers as ConstructorParameters<typeof Headers>[0]);
    if (this.#config.key !== undefined && !headers.has("authorization")) {
      headers.set("authorization", `Bearer ${this.#config.key}`);
    }
    return { ...options, headers };
  }

  /** Make a call that answers once: with a deadline, and again where that is safe. */
  async #callOnce(method: DescMethod, stub: Unary, request: object, options: CallOptions = {}): Promise<object> {
    const [sent, safe] = repeatable(method, request);
    const timeout = options.timeoutMs ?? this.#config.callTimeoutMs;
    const until = timeout > 0 ? performance.now() + timeout : Infinity;
    const again = new Retries(this.attempts);
    for (;;) {
      try {
        return await stub(sent, this.#withKey({ ...options, timeoutMs: left(until) }));
      } catch (error) {
        const failure = BlobHubError.from(error, options.signal);
        if (!safe || !(await again.wait(failure, until, options.signal))) throw failure;
      }
    }
  }

  /** Yield what a call streams. Leaving the loop ends the call, which it does not do in Connect. */
  async *#stream(stub: Streaming, request: object, options: CallOptions = {}): AsyncGenerator<object, void> {
    const leaving = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, leaving.signal]) : leaving.signal;
    try {
      for await (const message of stub(request, this.#withKey({ ...options, signal }))) yield message;
    } catch (error) {
      throw BlobHubError.from(error, options.signal);
    } finally {
      leaving.abort();
    }
  }

  /** How often a call that is safe to repeat is made at most. */
  get attempts(): number {
    return this.#config.attempts;
  }

  /**
   * Every item of a List method, page after page.
   *
   *     for await (const blob of hub.page(hub.listBlobs, { organization: "acme" })) …
   */
  async *page<Request extends object, Answer extends { nextPageToken: string }>(
    list: (request: Request, options?: CallOptions) => Promise<Answer>,
    request: Request,
    options?: CallOptions,
  ): AsyncGenerator<ItemOf<Answer>, void> {
    for (let asked = request; ;) {
      const answer = await list(asked, options);
      yield* items(answer) as ItemOf<Answer>[];
      if (answer.nextPageToken === "") return;
      asked = { ...request, pageToken: answer.nextPageToken };
    }
  }

  /**
   * What a Watch method streams, item by item. A stream that breaks is resumed after the last item, for as long as Config says.
   *
   *     for await (const event of hub.watch(hub.watchSession, { session })) …
   */
  watch<Request extends object, Answer extends object>(
    watch: (request: Request, options?: CallOptions) => AsyncIterable<Answer>,
    request: Request,
    options?: CallOptions,
  ): AsyncGenerator<ItemOf<Answer>, void> {
    const after = described.get(watch)?.input.fields.find((field) => /^after_.*sequence$/.test(field.name))?.localName;
    if (after === undefined) throw new TypeError("only Watch methods of a client are resumed");
    const begin = ((request as Fields)[after] as bigint | undefined) ?? 0n;
    const number = after.replace(/^after(.)/, (_, first: string) => first.toLowerCase());
    return this.#resume(number, begin, (seen) => watch({ ...request, [after]: seen }, options), options);
  }

  /**
   * Start an execution and yield its events until it has ended, also across interruptions. It starts one, however often it has to be
   * asked.
   */
  async *run(
    request: MessageInitShape<typeof RunExecutionRequestSchema>,
    options?: CallOptions,
  ): AsyncGenerator<Event, void> {
    const sent = { ...request, requestId: request.requestId || crypto.randomUUID() };
    let execution = "";
    const open = (seen: bigint): AsyncIterable<{ events: Event[] }> =>
      seen > 0n
        ? this.watchExecution({ execution, afterExecutionSequence: seen }, options)
        : this.runExecution(sent, options);
    for await (const event of this.#resume("executionSequence", 0n, open, options)) {
      execution = event.executionId;
      yield event;
    }
  }

  /**
   * Run a definition on plain values, and answer what it gives as one. Throws an ExecutionError where the execution does not
   * complete.
   */
  async result(
    session: string,
    definition: string,
    inputs: Record<string, Giveable> = {},
    options?: CallOptions,
  ): Promise<Plain> {
    const inputData = Object.entries(inputs).map(([alias, value]) => input(alias, value));
    for await (const { executionId, payload } of this.run({ session, spec: { definition, inputData } }, options)) {
      switch (payload.case) {
        case "flowExited":
          return plain(payload.value.result, payload.value.resultJson);
        case "flowError":
          throw new ExecutionError(executionId, payload.value.failure ?? { reason: "", message: "", line: 0 });
        case "flowStopped":
          throw new ExecutionError(executionId, { reason: "STOPPED", message: "the execution was stopped", line: 0 });
      }
    }
    throw new Error("the stream of an execution ended before the execution");
  }

  /** Follow an operation to its end, and answer its response. Throws a BlobHubError where it has failed. */
  async outcome<Response extends DescMessage>(
    operation: Pick<Operation, "id">,
    response: Response,
    options?: CallOptions,
  ): Promise<MessageShape<Response>> {
    let last: Operation | undefined;
    for await (const state of this.watch(this.watchOperation, { operation: operation.id }, options)) last = state;
    if (last?.result.case === "error") throw BlobHubError.fromStatus(last.result.value);
    const found = last?.result.case === "response" ? anyUnpack(last.result.value, response) : undefined;
    if (found) return found;
    throw new Error(`operation ${operation.id} ended as ${OperationState[last?.state ?? OperationState.UNSPECIFIED]}`);
  }

  /** Yield the items of a stream, and open it anew after the last one when it breaks. */
  async *#resume<Answer extends object>(
    number: string,
    begin: bigint,
    open: (seen: bigint) => AsyncIterable<Answer>,
    { signal }: CallOptions = {},
  ): AsyncGenerator<ItemOf<Answer>, void> {
    await this.#reach(signal);
    const again = new Retries(Infinity);
    const { reconnectTimeoutMs = Infinity } = this.#config;
    for (let after = begin, heard = performance.now(); ;) {
      try {
        for await (const message of open(after)) {
          heard = performance.now();
          for (const item of items(message) as Awaited<ItemOf<Answer>>[]) {
            const found = (item as Fields)[number] as bigint;
            // Only a `sequence` may have gaps.
            if (found <= after || (number !== "sequence" && found !== after + 1n)) {
              throw new LogGapError(`${number} ${found} came after ${after}, which is a bug of the server`);
            }
            after = found;
            again.reset();
            yield item;
          }
        }
        return;
      } catch (error) {
        if (!(error instanceof BlobHubError)) throw error;
        if (error.temporary && performance.now() - heard > reconnectTimeoutMs) {
          throw unavailable(`no server answers at ${this.#url.host} any more`, error);
        }
        if (!(await again.wait(error, Infinity, signal))) throw error;
      }
    }
  }

  /** Wait until a server answers. Anyone may ask who they are, and any answer will do. */
  async #reach(signal?: AbortSignal): Promise<void> {
    const until = performance.now() + this.#config.connectTimeoutMs;
    const again = new Retries(Infinity, MAX_REACH_DELAY_MS);
    for (;;) {
      try {
        await this.getCaller({}, { timeoutMs: left(until), ...(signal && { signal }) });
        return;
      } catch (error) {
        const failure = BlobHubError.from(error, signal);
        if (!failure.temporary || failure.reason) return;
        if (await again.wait(failure, until, signal)) continue;
        const hint =
          this.#url.protocol === "https:"
            ? "does it speak TLS, with a certificate that is trusted?"
            : "does it ask for TLS?";
        const within = `within ${this.#config.connectTimeoutMs / 1000} s; is one running there, and ${hint}`;
        throw unavailable(`no server answers at ${this.#url.host} ${within}`, failure);
      }
    }
  }
}

function unavailable(message: string, cause: BlobHubError): BlobHubError {
  return new BlobHubError({ code: Code.Unavailable, message: `${message} (${cause.rawMessage})`, cause });
}

/** How long until a moment, in milliseconds: at least one, because Connect takes none for no end. */
function left(until: number): number {
  return until === Infinity ? 0 : Math.max(1, Math.ceil(until - performance.now()));
}

/** What the one repeated field of a message holds. */
function items(message: object): unknown[] {
  for (const [name, value] of Object.entries(message) as [string, unknown][]) {
    if (Array.isArray(value) && name !== "$unknown") return value;
  }
  return [];
}

/** What is to be sent, and whether the call may be made again. A change gets a `request_id` for that, unless it has one. */
function repeatable(method: DescMethod, request: { requestId?: string }): [object, boolean] {
  if (method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS) return [request, true];
  if (!method.input.field["requestId"]) return [request, false];
  if (request.requestId) return [request, true];
  // A new key is shown once: the answer to a repeated call would have none.
  if (method.output.field["key"]) return [request, false];
  return [{ ...request, requestId: crypto.randomUUID() }, true];
}

/** When to try again. */
export class Retries {
  #delay = 0;
  #left: number;
  readonly #maxDelay: number;

  /** `attempts` is how many may be made in all. */
  constructor(attempts: number, maxDelay = MAX_DELAY_MS) {
    this.#left = attempts;
    this.#maxDelay = maxDelay;
  }

  /** The next delay is the shortest again. */
  reset(): void {
    this.#delay = 0;
  }

  /** Sleep before the next attempt. Answers false where there is to be none. */
  async wait(failure: BlobHubError, until = Infinity, signal?: AbortSignal): Promise<boolean> {
    this.#left -= 1;
    return this.#left > 0 && failure.temporary && this.pause(failure.retryAfterMs, until, signal);
  }

  /** Sleep for as long as a server has said, or for twice as long as before. Answers false where a signal or a moment ends it. */
  async pause(told: number, until = Infinity, signal?: AbortSignal): Promise<boolean> {
    this.#delay = Math.min(Math.max(this.#delay * 2, MIN_DELAY_MS), this.#maxDelay);
    const delay = told || this.#delay * (0.5 + Math.random() / 2);
    return performance.now() + delay < until && (await slept(delay, signal));
  }
}

/** Sleep; false where a signal ends it. */
export function slept(delay: number, signal?: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (whole: boolean): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      resolve(whole);
    };
    const stop = (): void => {
      end(false);
    };
    const timer = setTimeout(end, delay, true);
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
  });
}
