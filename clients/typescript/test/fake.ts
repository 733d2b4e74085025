/** A server that fails calls before it answers them. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { createServer, type Http2Server } from "node:http2";
import type { TestContext } from "node:test";
import type { AddressInfo, Socket } from "node:net";
import { ApiKeyService } from "../src/blobhub/v1/api_key_pb.js";
import { BlobService } from "../src/blobhub/v1/blob_pb.js";
import type { EventSchema } from "../src/blobhub/v1/event_pb.js";
import { EventSchema as Events } from "../src/blobhub/v1/event_pb.js";
import { ExecutionService } from "../src/blobhub/v1/execution_pb.js";
import { ModelService } from "../src/blobhub/v1/model_pb.js";
import { SessionService } from "../src/blobhub/v1/session_pb.js";
import { TaskService } from "../src/blobhub/v1/task_pb.js";
import { connect, type ConnectConfig, type Hub } from "../src/index.js";

export type EventInit = MessageInitShape<typeof EventSchema>;

/** What a request says, whatever its type. */
export type Request = Record<string, unknown>;

export class Fake {
  /** How many calls are still to fail. */
  failing = 0;
  failure: ConnectError = new ConnectError("down", Code.Unavailable);
  keys: (string | null)[] = [];
  requests: Request[] = [];
  events: EventInit[] = [];
  /** Bytes of a model, sent in pieces of 3; the connection breaks after each piece. */
  model = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  /** Tasks that a worker is given, as their leases and their inputs. */
  tasks: [string, string][] = [];
  /** Whether a worker that renews a lease is told to stop. */
  cancelled = false;
  digest = "66840dda154e8a113c31dd0ad32f7f3a366a80e8136979d8f5a101d3d29d6f72";
  /** Whether streams that are open were ended by the client. */
  left = 0;
  readonly #sockets = new Set<Socket>();
  #server: Http2Server | undefined;

  /** Take a call. Throws where it is to fail. */
  #call(request: object, context: HandlerContext): void {
    this.keys.push(context.requestHeader.get("authorization"));
    this.requests.push(request as Request);
    if (this.failing > 0) {
      this.failing -= 1;
      throw this.failure;
    }
  }

  /** Cut all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  readonly #routes = (router: ConnectRouter): void => {
    router.service(ApiKeyService, {
      createApiKey: (request, context) => {
        this.#call(request, context);
        return {};
      },
    });
    router.service(BlobService, {
      getBlob: (request, context) => {
        this.#call(request, context);
        return { blob: { alias: "pipeline" } };
      },
      createBlob: (request, context) => {
        this.#call(request, context);
        return {};
      },
      listBlobs: (request, context) => {
        this.#call(request, context);
        if (request.pageToken === "") return { blobs: [{ alias: "a" }, { alias: "b" }], nextPageToken: "2" };
        return request.pageToken === "2" ? { nextPageToken: "3" } : { blobs: [{ alias: "c" }] };
      },
    });
    const events = (): ReturnType<typeof create<typeof EventSchema>>[] => this.events.map((each) => create(Events, each));
    const left = (): number => (this.left += 1);
    const call = (request: object, context: HandlerContext): void => {
      this.#call(request, context);
    };
    const cut = (): void => {
      this.cut();
    };
    router.service(SessionService, {
      // One event a call, and then the connection breaks.
      async *watchSession(request, context) {
        context.signal.addEventListener("abort", left);
        call(request, context);
        const next = events()[Number(request.afterSessionSequence)];
        if (!next) return;
        yield { events: [next] };
        await new Promise((resolve) => setTimeout(resolve, 1));
        cut();
        await new Promise((resolve) => setTimeout(resolve, 60_000).unref());
      },
    });
    router.service(ExecutionService, {
      async *runExecution(request, context) {
        call(request, context);
        yield { execution: { id: "e" }, events: events().slice(0, 2) };
        await Promise.resolve();
        throw new ConnectError("cut", Code.Unavailable);
      },
      async *watchExecution(request, context) {
        call(request, context);
        yield { events: events().slice(Number(request.afterExecutionSequence)) };
        await Promise.resolve();
      },
    });
    const tasks = (): [string, string][] => this.tasks.splice(0);
    const answer = (request: object, context: HandlerContext): object => {
      this.#call(request, context);
      return {};
    };
    router.service(TaskService, {
      async *leaseTasks(request, context) {
        call(request, context);
        const leased = tasks();
        if (leased.length > 0) {
          yield { tasks: leased.map(([lease, inputJson]) => ({ lease, inputJson, task: { attempt: 1, id: lease } })) };
        }
        await new Promise((resolve) => {
          context.signal.addEventListener("abort", resolve);
        });
      },
      extendLease: (request, context) => ({ ...answer(request, context), stop: this.cancelled }),
      completeTask: answer,
      failTask: answer,
      returnTask: answer,
    });
    const model = (): [Uint8Array, string] => [this.model, this.digest];
    router.service(ModelService, {
      async *downloadModel(request, context) {
        call(request, context);
        const [bytes, digest] = model();
        const begin = Number(request.offset);
        const end = Math.min(begin + 3, request.length ? begin + Number(request.length) : bytes.length, bytes.length);
        yield { artifact: { size: BigInt(bytes.length), digest } };
        if (begin < end) yield { chunk: bytes.slice(begin, end) };
        await Promise.resolve();
        if (end < bytes.length) throw new ConnectError("cut", Code.Unavailable);
      },
    });
  };

  /** Begin to serve; the address. */
  async listen(): Promise<string> {
    const server = createServer(connectNodeAdapter({ routes: this.#routes }));
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server?.close();
  }
}

/** A server that fails, and a client of it. */
export async function start(t: TestContext, set: Partial<Fake> = {}, config: ConnectConfig = {}): Promise<[Hub, Fake]> {
  const fake = Object.assign(new Fake(), set);
  const hub = connect(await fake.listen(), { key: "bhk_key", ...config });
  t.after(() => {
    hub.close();
    fake.close();
  });
  return [hub, fake];
}

/** Events in order. */
export function sequences(count: number): EventInit[] {
  return Array.from({ length: count }, (_, index) => ({
    executionId: "e",
    sessionSequence: BigInt(index + 1),
    executionSequence: BigInt(index + 1),
  }));
}
