// C2SP signed notes, checkpoints and log keys. Everything is strict: one text for each value, any other throws.

import { decodeBase64, encodeBase64, isSame, joined, sha256, toHex, utf8, verifiesEd25519 } from "./bytes.js";
import { isPrintable } from "./readers.js";

const PUBLIC_BYTES = 32;
const MAX_KEY_CHARACTERS = 4096;
const MAX_SIGNATURES = 17;
// DER of SubjectPublicKeyInfo for Ed25519 up to the key's 32 bytes. RFC 8410 §4.
const SPKI_PREFIX = Uint8Array.of(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00);
const PEM_FIRST = "-----BEGIN PUBLIC KEY-----";
const PEM_LAST = "-----END PUBLIC KEY-----";
const ED25519 = Uint8Array.of(1);
const NAME = /^[A-Za-z0-9][A-Za-z0-9._/:-]{0,254}$/;
const NUMBER = /^(0|[1-9][0-9]{0,15})$/;
const HASH = /^[A-Za-z0-9+/]{43}=$/;
const SIGNATURE_LINE = /^— ([^\s+]{1,255}) ([A-Za-z0-9+/]+={0,2})$/u;

// A log's public key, from PEM or a C2SP vkey: {public, name, keyId}. `name` is null if the text has none; `keyId` is
// what envelopes call it (R13).
export async function parseLogKey(text) {
  if (text.length > MAX_KEY_CHARACTERS) throw new Error("it is too long");
  const lines = text.trim().split(/\r\n|[\n\r]/);
  if (lines.length === 3 && lines[0] === PEM_FIRST && lines[2] === PEM_LAST) {
    const der = decodeBase64(lines[1]);
    const prefix = der.slice(0, SPKI_PREFIX.length);
    if (der.length !== SPKI_PREFIX.length + PUBLIC_BYTES || !isSame(prefix, SPKI_PREFIX)) {
      throw new Error("not an Ed25519 key");
    }
    return keyOf(der.slice(SPKI_PREFIX.length), null);
  }
  const [name, id, ...rest] = lines[0].split("+");
  const typed = decodeBase64(rest.join("+"));
  const key = typed.slice(1);
  if (lines.length !== 1 || !NAME.test(name) || key.length !== PUBLIC_BYTES || typed[0] !== ED25519[0]) {
    throw new Error("neither PEM nor a vkey of Ed25519");
  }
  if (toHex(await noteId(key, name)) !== id) throw new Error("the key's id is not its own");
  return keyOf(key, name);
}

async function keyOf(publicBytes, name) {
  return { public: publicBytes, name, keyId: toHex(await sha256(joined(SPKI_PREFIX, publicBytes))) };
}

// The 4 bytes that identify a key in a signed note. C2SP signed-note.
async function noteId(publicBytes, name) {
  return (await sha256(joined(utf8(`${name}\n`), ED25519, publicBytes))).slice(0, 4);
}

// A number below 10**16 without leading zeros.
export function parseNumber(text) {
  if (!NUMBER.test(text)) throw new Error("not a canonical decimal");
  return BigInt(text);
}

export function parseHash(text) {
  if (!HASH.test(text)) throw new Error("not a SHA-256 hash in base64");
  return decodeBase64(text);
}

// The checkpoint {origin, size, root} of a signed note. Exactly one line must be the log's signature, and verify;
// lines of other keys, witnesses, must only have the form of one (R18).
export async function openCheckpoint(note, key) {
  const end = note.lastIndexOf("\n\n");
  const lines = note.slice(end + 2).split("\n");
  if (end < 0 || lines.pop() !== "" || lines.length < 1 || lines.length > MAX_SIGNATURES) {
    throw new Error("not a signed note");
  }
  const text = note.slice(0, end + 1);
  const checkpoint = readText(text);
  if (key.name !== null && key.name !== checkpoint.origin) throw new Error("the checkpoint is another log's");
  const id = await noteId(key.public, checkpoint.origin);
  const ours = [];
  for (const line of lines) {
    const match = SIGNATURE_LINE.exec(line);
    if (match === null || !isPrintable(line)) throw new Error("a signature line is malformed");
    const signed = decodeBase64(match[2]);
    if (match[1] === checkpoint.origin && isSame(signed.slice(0, 4), id)) ours.push(signed.slice(4));
  }
  if (ours.length !== 1 || !(await verifiesEd25519(key.public, ours[0], utf8(text)))) {
    throw new Error("the log's signature does not verify");
  }
  return checkpoint;
}

function readText(text) {
  const lines = text.split("\n");
  if (lines.length !== 4 || lines[3] !== "") throw new Error("a checkpoint has three lines");
  const [origin, size, root] = lines;
  if (!NAME.test(origin)) throw new Error("not the name of a log");
  return { origin, size: parseNumber(size), root: parseHash(root) };
}

// The note text of a checkpoint. C2SP tlog-checkpoint.
export const checkpointText = ({ origin, size, root }) => `${origin}\n${size}\n${encodeBase64(root)}\n`;
