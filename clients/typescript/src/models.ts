import type { MessageInitShape } from "@bufbuild/protobuf";
import { createHash } from "node:crypto";
import type { Client } from "./client.js";
import { Retries } from "./client.js";
import {
  type DownloadModelRequestSchema,
  type ModelArtifact,
  type ProcessedModel,
  ProcessedModelSchema,
  type UploadModelRequestSchema,
} from "./blobhub/v1/model_pb.js";
import { BlobHubError } from "./errors.js";

const CHUNK_BYTES = 256 << 10;

/** Bytes, or a function that begins to read them, as often as it is called: `() => createReadStream(path)`. */
export type ModelContent = Uint8Array | (() => AsyncIterable<Uint8Array>);

/** Is told how many bytes have gone through, and how many there are. */
export type Progress = (bytes: number, size: number) => void;

type Upload = MessageInitShape<typeof UploadModelRequestSchema>;

/** See Hub. */
export async function sendModel(
  hub: Client,
  request: Upload,
  content: ModelContent,
  progress?: Progress,
): Promise<ProcessedModel> {
  const digest = createHash("sha256");
  let size = 0;
  for await (const chunk of chunks(content)) {
    digest.update(chunk);
    size += chunk.length;
  }
  const first: Upload = {
    ...request,
    requestId: request.requestId || crypto.randomUUID(),
    size: BigInt(size),
    sha256: digest.digest("hex"),
  };
  async function* messages(): AsyncGenerator<Upload, void> {
    yield first;
    let sent = 0;
    for await (const chunk of chunks(content)) {
      yield { chunk };
      sent += chunk.length;
      progress?.(sent, size);
    }
  }
  for (const again = new Retries(hub.attempts); ;) {
    let operation;
    try {
      ({ operation } = await hub.uploadModel(messages()));
    } catch (error) {
      if (!(error instanceof BlobHubError) || !(await again.wait(error))) throw error;
      continue;
    }
    return hub.outcome(operation ?? { id: "" }, ProcessedModelSchema);
  }
}

/** Pieces that fit into messages. */
async function* chunks(content: ModelContent): AsyncGenerator<Uint8Array, void> {
  for await (const piece of content instanceof Uint8Array ? [content] : content()) {
    for (let at = 0; at < piece.length; at += CHUNK_BYTES) yield piece.subarray(at, at + CHUNK_BYTES);
  }
}

/** See Hub. */
export async function* receiveModel(
  hub: Client,
  request: MessageInitShape<typeof DownloadModelRequestSchema>,
  progress?: Progress,
): AsyncGenerator<Uint8Array, ModelArtifact> {
  const { offset = 0n, length = 0n } = request;
  const digest = createHash("sha256");
  let again = new Retries(hub.attempts);
  let artifact: ModelArtifact | undefined;
  let received = 0n;
  const ended = (): boolean => artifact !== undefined && received === (length || artifact.size - offset);
  while (!ended()) {
    try {
      const left = length && length - received;
      for await (const message of hub.downloadModel({ ...request, offset: offset + received, length: left })) {
        if (message.artifact && artifact && message.artifact.digest !== artifact.digest) {
          throw new Error("the model was replaced while it was downloaded");
        }
        artifact = message.artifact ?? artifact;
        if (message.chunk.length === 0) continue;
        received += BigInt(message.chunk.length);
        digest.update(message.chunk);
        again = new Retries(hub.attempts);
        progress?.(Number(received), Number(artifact?.size ?? 0n));
        yield message.chunk;
      }
      break;
    } catch (error) {
      if (!(error instanceof BlobHubError) || !(await again.wait(error))) throw error;
    }
  }
  if (!artifact) throw new Error("the download ended before it began");
  if (!offset && !length && digest.digest("hex") !== artifact.digest) {
    throw new Error("what was downloaded does not have the digest of the model");
  }
  return artifact;
}
