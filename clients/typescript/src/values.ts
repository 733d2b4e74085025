/** JSON values in messages as plain values, exactly. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Value } from "@bufbuild/protobuf/wkt";
import type { ExecutionInputSchema } from "./blobhub/v1/execution_pb.js";

/** A JSON value. An integer that a number does not say exactly is a bigint. */
export type Plain = null | boolean | number | bigint | string | Plain[] | { [name: string]: Plain };

/** What can be said as JSON: members that are undefined are left out. */
export type Giveable =
  null | boolean | number | bigint | string | readonly Giveable[] | { readonly [name: string]: Giveable | undefined };

/** A value for an execution. */
export function input(alias: string, value: Giveable): MessageInitShape<typeof ExecutionInputSchema> {
  return { alias, form: { case: "valueJson", value: toJson(value) } };
}

/** A value as JSON text. A bigint is an integer; a number beyond the exact integers is a fraction to the server. */
export function toJson(value: Giveable): string {
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") return number(value);
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${(value as readonly Giveable[]).map(toJson).join(",")}]`;
  const members = Object.entries(value).filter((member): member is [string, Giveable] => member[1] !== undefined);
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${toJson(member)}`).join(",")}}`;
}

/** A number as text that a server reads as the same number. */
function number(value: number): string {
  if (!Number.isFinite(value)) throw new TypeError(`${value} is no JSON`);
  if (Object.is(value, -0)) return "-0.0";
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? value.toExponential() : JSON.stringify(value);
}

/**
 * A value of a message. It is in one of two fields: as a Value, or as JSON text, which says what a Value cannot.
 *
 *     plain(execution.result, execution.resultJson)
 */
export function plain(value: Value | undefined, json = ""): Plain {
  return json === "" ? fromValue(value) : fromJson(json);
}

function fromValue(value: Value | undefined): Plain {
  const kind = value?.kind;
  switch (kind?.case) {
    case "structValue":
      return Object.fromEntries(Object.entries(kind.value.fields).map(([name, member]) => [name, fromValue(member)]));
    case "listValue":
      return kind.value.values.map(fromValue);
    case "numberValue":
    case "stringValue":
    case "boolValue":
      return kind.value;
    default:
      return null;
  }
}

/** A string with what follows it where it is a name, or a number. */
const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*/g;

/**
 * Parse JSON text without rounding integers. JSON.parse rounds each before anyone sees it, so those are put into strings, which are
 * marked, as are those that look marked already.
 */
export function fromJson(text: string): Plain {
  const marked = text.replace(TOKEN, (token, string: string | undefined, colon: string | undefined) => {
    if (string === undefined) return /^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token)) ? `"#n${token}"` : token;
    return colon === undefined && /^"[#\\]/.test(string) ? `"#s${string.slice(1)}` : token;
  });
  return JSON.parse(marked, (_, value: Plain) => {
    if (typeof value !== "string" || !value.startsWith("#")) return value;
    return value[1] === "n" ? BigInt(value.slice(2)) : value.slice(2);
  }) as Plain;
}
