import type { Message } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorReason } from "./blobhub/v1/error_pb.js";
import {
  type BadRequest,
  type BadRequest_FieldViolation,
  BadRequestSchema,
  type ErrorInfo,
  ErrorInfoSchema,
  type RetryInfo,
  RetryInfoSchema,
} from "./google/rpc/error_details_pb.js";
import type { Status } from "./google/rpc/status_pb.js";

/** What is known of a failure. */
export interface Failure {
  code: Code;
  message: string;
  reason?: string;
  domain?: string;
  metadata?: Readonly<Record<string, string>>;
  violations?: readonly BadRequest_FieldViolation[];
  retryAfterMs?: number;
  cause?: unknown;
}

/** Why a call failed. The text has the reason, the message, and those violations that the message does not mention. */
export class BlobHubError extends Error {
  override readonly name = "BlobHubError";
  readonly code: Code;
  /** The server's own words. */
  readonly rawMessage: string;
  /** Such as `NOT_FOUND`; empty where the server did not say. */
  readonly reason: string;
  /** Whose reason it is: `blobhub`, or the type of a blob. */
  readonly domain: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly BadRequest_FieldViolation[];
  /** How long the server says to wait; 0 where it does not. */
  readonly retryAfterMs: number;

  constructor(failure: Failure) {
    super(text(failure), { cause: failure.cause });
    this.code = failure.code;
    this.rawMessage = failure.message;
    this.reason = failure.reason ?? "";
    this.domain = failure.domain ?? "";
    this.metadata = failure.metadata ?? {};
    this.violations = failure.violations ?? [];
    this.retryAfterMs = failure.retryAfterMs ?? 0;
  }

  /** What a call was refused with, or broke with. `signal` is the caller's own, by which they may have ended it. */
  static from(error: unknown, signal?: AbortSignal): BlobHubError {
    if (error instanceof BlobHubError) return error;
    const said = ConnectError.from(error);
    const info = said.findDetails(ErrorInfoSchema)[0];
    return failed(signal?.aborted ? Code.Canceled : code(said), said.rawMessage, error, {
      info,
      wrong: said.findDetails(BadRequestSchema)[0],
      retry: said.findDetails(RetryInfoSchema)[0],
    });
  }

  /** What an operation failed with. */
  static fromStatus(status: Status): BlobHubError {
    const find = <T extends Message>(unpack: (detail: Status["details"][number]) => T | undefined): T | undefined =>
      status.details.map(unpack).find((detail) => detail !== undefined);
    // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- statuses of gRPC have the numbers of Code
    return failed(status.code, status.message, undefined, {
      info: find((detail) => anyUnpack(detail, ErrorInfoSchema)),
      wrong: find((detail) => anyUnpack(detail, BadRequestSchema)),
      retry: find((detail) => anyUnpack(detail, RetryInfoSchema)),
    });
  }

  /** The reason as a value of the contract; unspecified where it is a type's own, or a newer server's. */
  get errorReason(): ErrorReason {
    const reasons: Partial<Record<string, ErrorReason | string>> = this.domain === "blobhub" ? ErrorReason : {};
    const found = reasons[this.reason];
    return typeof found === "number" ? found : ErrorReason.UNSPECIFIED;
  }

  /** Whether the same may succeed a little later. */
  get temporary(): boolean {
    const waits = this.code === Code.ResourceExhausted && this.retryAfterMs > 0;
    return this.code === Code.Unavailable || this.code === Code.DeadlineExceeded || waits;
  }
}

interface Details {
  info: ErrorInfo | undefined;
  wrong: BadRequest | undefined;
  retry: RetryInfo | undefined;
}

function failed(code: Code, message: string, cause: unknown, { info, wrong, retry }: Details): BlobHubError {
  const delay = retry?.retryDelay;
  return new BlobHubError({
    code,
    message,
    reason: info?.reason ?? "",
    domain: info?.domain ?? "",
    metadata: info?.metadata ?? {},
    violations: wrong?.fieldViolations ?? [],
    retryAfterMs: delay ? Number(delay.seconds) * 1000 + delay.nanos / 1e6 : 0,
    cause,
  });
}

/**
 * The code of a failure. Where a connection breaks, Connect says ABORTED, INTERNAL, CANCELED or UNKNOWN, by how it broke; for
 * the caller it is UNAVAILABLE, as in other languages. What the server has said came with a status, or with details.
 */
function code(said: ConnectError): Code {
  const byServer = said.metadata.has("grpc-status") || said.metadata.has("grpc-status-details-bin") || said.details.length;
  const ambiguous = [Code.Aborted, Code.Internal, Code.Canceled, Code.Unknown];
  const broken =
    said.cause instanceof Error || /http\/2 stream closed|missing (status|output|trailer)|premature/.test(said.rawMessage);
  return !byServer && broken && ambiguous.includes(said.code) ? Code.Unavailable : said.code;
}

function text(failure: Failure): string {
  const upper = ((Code[failure.code] as string | undefined) ?? "UNKNOWN").replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
  const unmentioned = (failure.violations ?? []).filter((each) => !failure.message.includes(each.description));
  const violations = unmentioned.map((each) => `; ${each.field ? `${each.field}: ` : ""}${each.description}`);
  return `${failure.reason || upper}: ${failure.message}${violations.join("")}`;
}

/** Why an execution did not complete. */
export class ExecutionError extends Error {
  override readonly name = "ExecutionError";
  readonly executionId: string;
  readonly reason: string;
  /** Of the script or expression; 0 where it is not about one. */
  readonly line: number;

  constructor(executionId: string, failure: { reason: string; message: string; line: number }) {
    super(`${failure.reason}: ${failure.message}`);
    this.executionId = executionId;
    this.reason = failure.reason;
    this.line = failure.line;
  }
}
