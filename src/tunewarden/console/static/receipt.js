// Verifies a receipt in the browser, as `tunewarden-receipts` does: docs/receipt-format.md, R24 to R28.
//
// This module comes from the server that made the receipt: the independent check is the command, or openssl.

import { decodeBase64, fromHex, fromUtf8, hmacWith, joined, toHex, utf8, verifiesEd25519 } from "./bytes.js";
import { canonical, parseCanonical } from "./canonical.js";
import { leafHash, MAX_PROOF_HASHES, rootOf, verifyInclusion } from "./merkle.js";
import { openCheckpoint, parseHash, parseLogKey, parseNumber } from "./note.js";
import { isObject, objectOf } from "./readers.js";
import { checkDisclosureForm, checkStatement, committed, isCase, isList } from "./statements.js";

const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const MEDIA_TYPE = "application/vnd.tunewarden.receipt.v2+json";
const MEDIA_TYPE_1 = "application/vnd.tunewarden.receipt.v1+json";
const PROOF_HEADER = "c2sp.org/tlog-proof@v1";
export const MAX_ENVELOPE_BYTES = 65535;
export const MAX_RECEIPT_BYTES = 262144;

// The steps, in order: what a failed check is named by, and what the page shows.
export const STEPS = {
  key: "The log's key can be read, and each hand-over to another key is proven",
  form: "The receipt has exactly the form of the format",
  statement: "The log's key signed the statement",
  disclosure: "Each disclosed value is the one that the statement commits to",
  checkpoint: "The log's key signed the checkpoint",
  inclusion: "The statement is an entry of the log under that checkpoint",
};

// A receipt is not valid; `step` is the check that failed.
export class ReceiptError extends Error {
  constructor(step, reason) {
    super(reason);
    this.step = step;
  }
}

// Return what a receipt proves; throw ReceiptError, and nothing else, if it is not valid. `receipt`: its bytes;
// `logKey`: the log's public key as text, PEM or vkey, from a source that is trusted.
export async function verify(receipt, logKey) {
  return verifyWith(receipt, await step("key", () => parseLogKey(logKey)));
}

// The same with a key that was read already.
export async function verifyWith(receipt, key) {
  const value = await step("form", () => readReceipt(receipt));
  const { statement, text } = await openEnvelope(value.envelope, key);
  await step("disclosure", () => checkDisclosure(value, statement));
  const proof = await step("form", () => readProof(value.proof));
  const checkpoint = await step("checkpoint", () => openCheckpoint(proof.note, key));
  const leaf = await leafHash(utf8(canonical(value.envelope)));
  await step("inclusion", async () => {
    if (!(await verifyInclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root))) {
      throw new Error("The statement is not the log's entry that the proof speaks of.");
    }
  });
  const disclosure = value.disclosure ?? null;
  return { statement, text, disclosure, index: proof.index, checkpoint, note: proof.note, keyId: key.keyId };
}

// Whether bytes are meant as a receipt at all: what is not is no receipt that is wrong.
export function isReceipt(bytes) {
  try {
    const value = JSON.parse(fromUtf8(bytes));
    return isObject(value) && Object.hasOwn(value, "envelope") && Object.hasOwn(value, "proof");
  } catch {
    return false;
  }
}

// What a proven receipt is about, by the id that people know: of version 2 only the disclosure has it.
export function subjectOf({ statement, disclosure }) {
  const { name } = statement.subject[0];
  return isCase(statement) ? name : (disclosure?.artifactId ?? name);
}

export async function step(name, check) {
  try {
    return await check();
  } catch (error) {
    throw error instanceof ReceiptError ? error : new ReceiptError(name, error.message);
  }
}

function readReceipt(bytes) {
  const value = parseCanonical(bytes, MAX_RECEIPT_BYTES);
  const hasDisclosure = isObject(value) && Object.hasOwn(value, "disclosure");
  const accept = () => {};
  const members = { envelope: accept, mediaType: accept, proof: accept };
  objectOf(hasDisclosure ? { ...members, disclosure: accept } : members)(value);
  if (value.mediaType !== (hasDisclosure ? MEDIA_TYPE : MEDIA_TYPE_1)) {
    throw new Error("The receipt is of another kind or version.");
  }
  if (typeof value.proof !== "string") throw new Error("The receipt's proof is not a text.");
  return value;
}

// Return the statement, and its text, of an envelope whose signature verifies (R10 to R13, R25).
async function openEnvelope(envelope, key) {
  const { payload, signature } = await step("form", () => readEnvelope(envelope));
  await step("statement", async () => {
    if (envelope.signatures[0].keyid !== key.keyId) throw new Error("The statement names another key than the log's.");
    if (!(await verifiesEd25519(key.public, signature, preAuthentication(payload)))) {
      throw new Error("The statement's signature does not verify.");
    }
  });
  return step("form", async () => {
    const statement = parseCanonical(payload, MAX_ENVELOPE_BYTES);
    await checkStatement(statement);
    return { statement, text: fromUtf8(payload) };
  });
}

function readEnvelope(envelope) {
  const string = (value) => {
    if (typeof value !== "string") throw new Error("The envelope is not DSSE with one signature.");
  };
  const one = objectOf({ keyid: string, sig: string });
  const signatures = (value) => {
    if (!Array.isArray(value) || value.length !== 1) throw new Error("The envelope is not DSSE with one signature.");
    one(value[0]);
  };
  objectOf({ payload: string, payloadType: string, signatures })(envelope);
  if (envelope.payloadType !== PAYLOAD_TYPE) throw new Error("The envelope's payload is not an in-toto statement.");
  if (utf8(canonical(envelope)).length > MAX_ENVELOPE_BYTES) throw new Error("The envelope is too large.");
  return { payload: decodeBase64(envelope.payload), signature: decodeBase64(envelope.signatures[0].sig) };
}

// The bytes that a DSSE signature covers. DSSE v1 protocol, PAE.
const preAuthentication = (payload) =>
  joined(utf8(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload);

// R28, and that the receipt and its statement are of one version.
async function checkDisclosure(value, statement) {
  const commits = await checkStatement(statement);
  if (commits !== Object.hasOwn(value, "disclosure")) {
    throw new Error("The receipt and its statement are of two formats.");
  }
  if (!commits) return;
  const { disclosure } = value;
  checkDisclosureForm(disclosure);
  const hmac = await hmacWith(fromHex(disclosure.salt));
  const held = committed(statement);
  for (const [name, shown] of Object.entries(disclosure)) {
    if (name === "salt") continue;
    const commit = isList(name) ? commitList : commitOne;
    if (!(await commit(hmac, name, shown, held[name]))) {
      throw new Error(`The value of ${name} is not the one that the log's entry commits to.`);
    }
  }
}

const commitment = (hmac, name, value) => hmac(utf8(`${name}:${typeof value === "string" ? value : canonical(value)}`));

const commitOne = async (hmac, name, value, held) => toHex(await commitment(hmac, name, value)) === held;

async function commitList(hmac, name, items, held) {
  if (!isObject(held) || held.count !== items.length) return false;
  const leaves = await Promise.all(items.map(async (item) => leafHash(await commitment(hmac, name, item))));
  return toHex(await rootOf(leaves)) === held.root;
}

// A C2SP tlog-proof without extra line (R22).
function readProof(text) {
  const end = text.indexOf("\n\n");
  const [header, index, ...hashes] = text.slice(0, Math.max(end, 0)).split("\n");
  if (end < 0 || header !== PROOF_HEADER || !index?.startsWith("index ")) throw new Error("It is not a tlog-proof.");
  if (hashes.length > MAX_PROOF_HASHES) throw new Error("The proof is too long.");
  return {
    index: parseNumber(index.slice("index ".length)),
    hashes: hashes.map(parseHash),
    note: text.slice(end + 2),
  };
}
