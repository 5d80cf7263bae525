// Bytes and their spellings, and the hashes that receipts and the log are made of (WebCrypto).

const HEX_32_BYTES = /^[0-9a-f]{64}$/;
const encoder = new TextEncoder();

export const utf8 = (text) => encoder.encode(text);

// Strict: what is not UTF-8 throws, and a byte order mark is a character like any other.
export const fromUtf8 = (bytes) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);

export function encodeBase64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

// Standard base64 in its one canonical spelling; any other throws.
export function decodeBase64(text) {
  const decoded = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  if (encodeBase64(decoded) !== text) throw new Error("base64 is not canonical");
  return decoded;
}

export const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

export function fromHex(text) {
  if (!HEX_32_BYTES.test(text)) throw new Error("not 32 bytes in lower-case hex");
  return Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
}

export function joined(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export const isSame = (one, other) => one.length === other.length && one.every((byte, n) => byte === other[n]);

export const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

// Return a function that gives the HMAC-SHA-256 of bytes under this key. RFC 2104.
export async function hmacWith(secret) {
  const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return async (bytes) => new Uint8Array(await crypto.subtle.sign("HMAC", key, bytes));
}

// Return whether the Ed25519 key signed the message. RFC 8032.
export async function verifiesEd25519(publicBytes, signature, message) {
  const key = await crypto.subtle.importKey("raw", publicBytes, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, key, signature, message);
}

// Whether this page may check anything: browsers offer WebCrypto on HTTPS and on this machine only, older ones
// no Ed25519. No other code takes its place: then the command checks.
export async function canVerify() {
  try {
    await crypto.subtle.importKey("raw", new Uint8Array(32), { name: "Ed25519" }, false, ["verify"]);
    return true;
  } catch {
    return false;
  }
}
