/**
 * What needs nothing of Node. In a browser:
 *
 *     const hub = new Client(createConnectTransport({ baseUrl }), baseUrl, { key });
 *
 * Messages and services are in `@blobhub/client/v1/*`.
 */
export { Client, type Config, type ItemOf, LogGapError } from "./client.js";
export { BlobHubError, ExecutionError } from "./errors.js";
export { contractDigest, type Services, services } from "./services_pb.js";
export { fromJson, type Giveable, input, type Plain, plain, toJson } from "./values.js";
