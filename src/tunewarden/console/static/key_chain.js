// The keys that a log had, one after another, from the one that is trusted (R30 to R34): each hand-over is proven by the
// entry that the former key signed, and by a checkpoint that ends with it and that the new key signed too.

import { decodeBase64, fromUtf8, utf8 } from "./bytes.js";
import { canonical, parseCanonical } from "./canonical.js";
import { openCheckpoint, parseLogKey } from "./note.js";
import { isObject } from "./readers.js";
import { MAX_ENVELOPE_BYTES, ReceiptError, step, verifyWith } from "./receipt.js";
import { checkStatement, HAND_OVER, handedOver } from "./statements.js";

const MEDIA_TYPE = "application/vnd.tunewarden.log-key-hand-overs.v1+json";
const MAX_HAND_OVERS = 100;
const MAX_DOCUMENT_BYTES = 1048576;

// The chain {keys, ends} from the key that `trusted` is (text) on; from the document's first key if it is null. `ends`
// has the entry with which the time of each key but the last ends. `document`: the bytes of /log/hand-overs. Throws
// ReceiptError for what is not proven.
export const parseChain = (document, trusted) =>
  step("key", async () => {
    const receipts = read(document);
    const pairs = await Promise.all(receipts.map((one) => keysOf(one)));
    for (let n = 1; n < pairs.length; n += 1) {
      if (pairs[n - 1].next.vkey !== pairs[n].previous.vkey) throw new Error("One hand-over does not follow on another.");
    }
    if (trusted === null && pairs.length === 0) throw new Error("There are no hand-overs.");
    const first = trusted === null ? pairs[0].previous.key : await parseLogKey(trusted);
    const known = pairs.map((one) => one.previous.key.keyId);
    if (pairs.length > 0) known.push(pairs.at(-1).next.key.keyId);
    const at = known.indexOf(first.keyId);
    if (known.length > 0 && at < 0) throw new Error("The hand-overs do not begin with the log key that you trust.");
    let chain = { keys: [first], ends: [], sequence: null };
    for (const one of receipts.slice(Math.max(at, 0))) chain = await extended(chain, one);
    return chain;
  });

// What a receipt proves that one of the chain's keys signed in its time; throws ReceiptError.
export async function verifyInChain(receipt, chain) {
  const keyId = keyIdOf(receipt);
  const key = chain.keys.find((one) => one.keyId === keyId);
  if (!key) {
    throw new ReceiptError("key", "The statement names a key that the log key that you trust does not lead to.");
  }
  const found = await verifyWith(receipt, { ...key, name: null });
  if (keyOfEntry(chain, found.index) !== key || keyOfCheckpoint(chain, found.checkpoint.size) !== key) {
    throw new ReceiptError("statement", "The statement is signed by a key that was not the log's then.");
  }
  if (chain.keys.some((one) => one.name !== null && one.name !== found.checkpoint.origin)) {
    throw new ReceiptError("checkpoint", "The checkpoint is another log's.");
  }
  return found;
}

// The checkpoint of a note that the key of its time signed; throws.
export async function openInChain(note, chain) {
  let refused;
  for (const key of [...chain.keys].reverse()) {
    try {
      const checkpoint = await openCheckpoint(note, key);
      const own = keyOfCheckpoint(chain, checkpoint.size);
      // With a hand-over's own checkpoint the new key begins.
      if (own === key || isHandOver(chain, checkpoint.size, key)) return checkpoint;
      refused = new Error("it is signed by a key that was not the log's then");
    } catch (error) {
      refused ??= error;
    }
  }
  throw refused;
}

function read(document) {
  const value = parseCanonical(document, MAX_DOCUMENT_BYTES);
  const isOurs = isObject(value) && Object.keys(value).sort().join() === "handOvers,mediaType";
  if (!isOurs || value.mediaType !== MEDIA_TYPE) throw new Error("The hand-overs are of another kind or version.");
  if (!Array.isArray(value.handOvers) || value.handOvers.length > MAX_HAND_OVERS) {
    throw new Error("The hand-overs are no list, or too many.");
  }
  return value.handOvers.map((one) => utf8(canonical(one)));
}

// The keys that a hand-over's receipt names, unverified, each with its spelling.
async function keysOf(receipt) {
  const { envelope } = JSON.parse(fromUtf8(receipt));
  const statement = parseCanonical(decodeBase64(envelope.payload), MAX_ENVELOPE_BYTES);
  await checkStatement(statement);
  if (statement.predicateType !== HAND_OVER) throw new Error("An entry hands nothing over.");
  const { previous, next } = await handedOver(statement);
  const { previousKey, newKey } = statement.predicate;
  return { previous: { key: previous, vkey: previousKey.trim() }, next: { key: next, vkey: newKey.trim() } };
}

async function extended(chain, receipt) {
  const newest = chain.keys.at(-1);
  const { statement, index, checkpoint, note } = await verifyWith(receipt, { ...newest, name: null });
  if (statement.predicateType !== HAND_OVER) throw new Error("The entry hands nothing over.");
  const { previous, next } = await handedOver(statement);
  const { sequence } = statement.predicate;
  const isFromNewest = previous.keyId === newest.keyId && [null, previous.name].includes(newest.name);
  if (!isFromNewest) throw new Error("The hand-over is from another key.");
  if (chain.keys.some((one) => one.keyId === next.keyId)) {
    throw new Error("The hand-over is to a key that the log had before.");
  }
  if (chain.sequence !== null && sequence !== chain.sequence + 1) throw new Error("A hand-over before this one is missing.");
  if (index <= (chain.ends.at(-1) ?? -1n) || checkpoint.size !== index + 1n) {
    throw new Error("The hand-over's checkpoint does not end with it.");
  }
  await openCheckpoint(note, next);
  return { keys: [...chain.keys, next], ends: [...chain.ends, index], sequence };
}

function keyOfEntry({ keys, ends }, index) {
  return keys[ends.filter((end) => end < index).length];
}

// A checkpoint up to a hand-over, and with it, is the former key's.
function keyOfCheckpoint({ keys, ends }, size) {
  return keys[ends.filter((end) => end + 1n < size).length];
}

const isHandOver = ({ keys, ends }, size, key) => ends.some((end, n) => end + 1n === size && keys[n + 1] === key);

function keyIdOf(receipt) {
  try {
    return JSON.parse(fromUtf8(receipt)).envelope.signatures[0].keyid;
  } catch {
    return null;
  }
}
