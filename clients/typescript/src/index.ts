/**
 * A small client for BlobHub: it connects with a key, repeats what is safe to repeat, walks pages, runs and watches with automatic
 * resume, and moves models. Everything else is the generated stubs, whose methods a Hub has.
 *
 *     const hub = connect("127.0.0.1:7443", { key });
 *     for await (const blob of hub.page(hub.listBlobs, { organization: "acme" })) console.log(blob.alias);
 */

import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { SecureClientSessionOptions } from "node:http2";
import { Client, type Config } from "./client.js";
import { type ModelContent, type Progress, receiveModel, sendModel } from "./models.js";

export * from "./web.js";
export type { ModelContent, Progress } from "./models.js";
export { type Handler, NotRetryable, type Task, Worker, type WorkerConfig } from "./worker.js";

/** How a server is called and connected to. */
export interface ConnectConfig extends Config {
  /** Connect over TLS: `true` trusts what Node trusts; else certificates and whatever `tls.connect` takes. In clear unless set. */
  tls?: boolean | SecureClientSessionOptions;
}

/** A client of the server at an address, which is host and port. It does not wait for the server: the first call does. */
export function connect(address: string, config: ConnectConfig = {}): Hub {
  return new Hub(address, config);
}

/** A Client over gRPC, which also moves models. */
export class Hub extends Client {
  readonly #session: Http2SessionManager;

  constructor(address: string, { tls = false, ...config }: ConnectConfig = {}) {
    const baseUrl = `${tls ? "https" : "http"}://${address}`;
    const pings = { pingIntervalMs: 20_000, pingTimeoutMs: 10_000 };
    const session = new Http2SessionManager(baseUrl, pings, typeof tls === "object" ? tls : undefined);
    super(createGrpcTransport({ baseUrl, sessionManager: session }), baseUrl, config);
    this.#session = session;
  }

  /** End the connection, and with it what is still called over it. */
  close(): void {
    this.#session.abort();
  }

  /**
   * Store a model and wait until it is processed. The request says which revision it is for, and what it is; size and digest are found
   * out. It is sent again from its beginning when the connection breaks, and stored once.
   */
  sendModel(
    request: Parameters<typeof sendModel>[1],
    content: ModelContent,
    progress?: Progress,
  ): ReturnType<typeof sendModel> {
    return sendModel(this, request, content, progress);
  }

  /**
   * Yield the bytes of an artifact, or of a range of it, and return the artifact. It goes on where it was when the connection breaks, and
   * compares the digest of what is whole.
   *
   *     await pipeline(hub.receiveModel({ revision: "acme/scorer" }), createWriteStream("model.onnx"));
   */
  receiveModel(request: Parameters<typeof receiveModel>[1], progress?: Progress): ReturnType<typeof receiveModel> {
    return receiveModel(this, request, progress);
  }
}
