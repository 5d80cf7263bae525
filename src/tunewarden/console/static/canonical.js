// RFC 8785: canonical JSON is ECMAScript's, with sorted members and without white space.

import { fromUtf8, utf8, isSame } from "./bytes.js";

export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    // Sorted by UTF-16 code units, as RFC 8785 §3.2.3 asks.
    const members = Object.keys(value).sort().map((name) => `${text(name)}:${canonical(value[name])}`);
    return `{${members.join(",")}}`;
  }
  return typeof value === "string" ? text(value) : JSON.stringify(value);
}

// Parse bytes that must be canonical JSON. A repeated member, another order and white space change them, so that
// comparing is enough. Throws for anything else.
export function parseCanonical(bytes, limitBytes) {
  if (bytes.length > limitBytes) throw new Error("it is too large");
  const value = JSON.parse(fromUtf8(bytes));
  if (!isSame(utf8(canonical(value)), bytes)) throw new Error("its bytes were changed or written anew");
  return value;
}

function text(value) {
  // JSON.stringify would escape it, but no UTF-8 has it.
  if (/\p{Surrogate}/u.test(value)) throw new Error("a text has half a character");
  return JSON.stringify(value);
}
