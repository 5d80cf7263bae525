// A small witness of the log: this browser keeps the last checkpoint that it saw and asks whether the log was only
// appended to since (docs/receipt-format.md, R29). The proof is made of the log's public tiles (C2SP tlog-tiles), and
// verified against both signed roots, so that nothing in the tiles needs to be believed. A key that took over since is
// believed if hand-overs lead to it (R33).

import { openInChain, parseChain } from "./key_chain.js";
import { consistencyProof, nodeHash, verifyConsistency } from "./merkle.js";
import { openCheckpoint, parseLogKey } from "./note.js";

const HASH_BYTES = 32;
const TILE_HEIGHT = 8n;
const TILE_WIDTH = 1n << TILE_HEIGHT;
const KEPT = "tunewarden-log";

// What a visit can find. What is `broken` or `unreadable` stays kept as it was, so that the next visit says so again.
export const FIRST = "first";
export const SAME = "same";
export const APPENDED = "appended";
export const BROKEN = "broken";
export const UNREADABLE = "unreadable";

// Compare what the log serves now, {note, key, handOvers}, with what `storage` keeps of it; keep it, unless it is broken. Return
// {found, reason, before, now}: the checkpoints, `before` null on the first visit. `readTile` gives the bytes of a path
// such as "0/000.p/3". Throws if tiles cannot be had, for then nothing is known.
export async function witness(storage, served, readTile) {
  const kept = read(storage);
  const visit = kept === null ? await first(served) : await again(kept, served, readTile);
  if (![BROKEN, UNREADABLE].includes(visit.found)) storage.setItem(KEPT, JSON.stringify({ note: served.note, key: served.key }));
  return visit;
}

// Forget what was kept: a person has decided that the log is another one now.
export const forget = (storage) => storage.removeItem(KEPT);

function read(storage) {
  try {
    const { note, key } = JSON.parse(storage.getItem(KEPT));
    return typeof note === "string" && typeof key === "string" ? { note, key } : null;
  } catch {
    return null;
  }
}

async function first(served) {
  try {
    const now = await openCheckpoint(served.note, await parseLogKey(served.key));
    return { found: FIRST, reason: null, before: null, now };
  } catch (error) {
    return broken(null, null, `The log's checkpoint cannot be trusted: ${error.message}.`);
  }
}

async function again(kept, served, readTile) {
  let before;
  try {
    before = await openCheckpoint(kept.note, await parseLogKey(kept.key));
  } catch (error) {
    const reason = `What this browser kept of the log cannot be read: ${error.message}.`;
    return { found: UNREADABLE, reason, before: null, now: null };
  }
  let chain;
  try {
    chain = await parseChain(served.handOvers, kept.key);
  } catch (error) {
    return broken(before, null, `What is said of the log's keys is not proven: ${error.message}`);
  }
  const servedKey = await parseLogKey(served.key).catch(() => null);
  if (servedKey?.keyId !== chain.keys.at(-1).keyId) {
    return broken(before, null, "The log has another key than the one that this browser saw, and none leads to it.");
  }
  let now;
  try {
    now = await openInChain(served.note, chain);
  } catch (error) {
    return broken(before, null, `The log's checkpoint cannot be trusted: ${error.message}.`);
  }
  if (now.origin !== before.origin) return broken(before, now, "The log has another name than this browser saw.");
  if (now.size < before.size) return broken(before, now, "The log is shorter than this browser saw it.");
  const proof = await consistencyProof(before.size, now.size, nodesOf(readTile, now.size));
  if (!(await verifyConsistency(before.size, now.size, before.root, now.root, proof))) {
    return broken(before, now, "The log was not only appended to since this browser saw it.");
  }
  return { found: now.size === before.size ? SAME : APPENDED, reason: null, before, now };
}

const broken = (before, now, reason) => ({ found: BROKEN, reason, before, now });

// A function of (level, index) that gives a node of the tree of `size` leaves from its tiles.
function nodesOf(readTile, size) {
  const tiles = new Map();
  const hashesOf = (level, index) => {
    const count = size >> (TILE_HEIGHT * level);
    const left = count - index * TILE_WIDTH;
    const path = tilePath(level, index, left < TILE_WIDTH ? left : TILE_WIDTH);
    if (!tiles.has(path)) tiles.set(path, readTile(path));
    return tiles.get(path);
  };
  return async (level, index) => {
    const tileLevel = level / TILE_HEIGHT;
    const within = level % TILE_HEIGHT;
    const start = index << within;
    const tile = await hashesOf(tileLevel, start / TILE_WIDTH);
    const at = Number(start % TILE_WIDTH) * HASH_BYTES;
    const end = at + (1 << Number(within)) * HASH_BYTES;
    if (tile.length < end) throw new Error("A tile of the log is too short.");
    return complete(tile.slice(at, end));
  };
}

// The root over 2**k hashes.
async function complete(hashes) {
  if (hashes.length === HASH_BYTES) return hashes;
  const middle = hashes.length / 2;
  return nodeHash(await complete(hashes.slice(0, middle)), await complete(hashes.slice(middle)));
}

// `<L>/<N>[.p/<W>]`, the number in groups of three digits. C2SP tlog-tiles.
export function tilePath(level, index, width) {
  const digits = String(index);
  const groups = digits.padStart(Math.ceil(digits.length / 3) * 3, "0").match(/.{3}/g);
  const name = groups.map((group, n) => (n < groups.length - 1 ? `x${group}` : group)).join("/");
  return `${level}/${name}${width < TILE_WIDTH ? `.p/${width}` : ""}`;
}
