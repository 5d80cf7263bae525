// The Merkle tree of RFC 6962: hashes, and the verification of proofs. Sizes and indices are BigInt.

import { isSame, joined, sha256 } from "./bytes.js";

// A tree of more than 2**63 leaves does not exist, so no honest proof is longer.
export const MAX_PROOF_HASHES = 63;
const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

export const leafHash = (entry) => sha256(joined(LEAF, entry));
export const nodeHash = (left, right) => sha256(joined(NODE, left, right));

// The root over leaf hashes. RFC 6962 §2.1: pairs are hashed together, and the last of an odd level moves up alone.
export async function rootOf(leaves) {
  if (leaves.length === 0) return sha256(new Uint8Array(0));
  let level = leaves;
  while (level.length > 1) {
    const above = [];
    for (let n = 0; n < level.length; n += 2) {
      above.push(n + 1 < level.length ? nodeHash(level[n], level[n + 1]) : level[n]);
    }
    level = await Promise.all(above);
  }
  return level[0];
}

// Whether `proof` shows the leaf hash at `index` under `root`. RFC 9162 §2.1.3.2.
export async function verifyInclusion(leaf, index, size, proof, root) {
  if (index < 0n || index >= size) return false;
  let position = index;
  let last = size - 1n;
  let result = leaf;
  for (const sibling of proof) {
    if (last === 0n) return false;
    if (position & 1n || position === last) {
      result = await nodeHash(sibling, result);
      while (!(position & 1n) && position) {
        position >>= 1n;
        last >>= 1n;
      }
    } else {
      result = await nodeHash(result, sibling);
    }
    position >>= 1n;
    last >>= 1n;
  }
  return last === 0n && isSame(result, root);
}

// Whether the tree of `second` leaves only appended to that of `first`. RFC 9162 §2.1.4.2.
export async function verifyConsistency(first, second, firstRoot, secondRoot, proof) {
  if (first < 0n || first > second || proof.length > MAX_PROOF_HASHES) return false;
  if (first === second) return proof.length === 0 && isSame(firstRoot, secondRoot);
  if (first === 0n) return proof.length === 0 && isSame(firstRoot, await rootOf([]));
  // A complete old tree is a node of the new one: its root takes the place of the first hash.
  const path = (first & (first - 1n)) === 0n ? [firstRoot, ...proof] : [...proof];
  if (path.length === 0) return false;
  let position = first - 1n;
  let last = second - 1n;
  while (position & 1n) {
    position >>= 1n;
    last >>= 1n;
  }
  let [older] = path;
  let newer = older;
  for (const hashed of path.slice(1)) {
    if (last === 0n) return false;
    if (position & 1n || position === last) {
      older = await nodeHash(hashed, older);
      newer = await nodeHash(hashed, newer);
      while (!(position & 1n) && position) {
        position >>= 1n;
        last >>= 1n;
      }
    } else {
      newer = await nodeHash(newer, hashed);
    }
    position >>= 1n;
    last >>= 1n;
  }
  return last === 0n && isSame(older, firstRoot) && isSame(newer, secondRoot);
}

// PROOF(first, D[0:second]), RFC 6962 §2.1.2. `node(level, index)` gives the hash of a complete subtree.
export async function consistencyProof(first, second, node) {
  if (first === 0n || first === second) return [];
  const path = [];
  let [start, end] = [0n, second];
  while (first !== end) {
    const middle = start + split(end - start);
    if (first <= middle) {
      path.push(await rangeRoot(middle, end, node));
      end = middle;
    } else {
      path.push(await rangeRoot(start, middle, node));
      start = middle;
    }
  }
  if (start > 0n) path.push(await rangeRoot(start, end, node));
  return path.reverse();
}

async function rangeRoot(start, end, node) {
  const size = end - start;
  if ((size & (size - 1n)) === 0n) {
    const level = BigInt(size.toString(2).length - 1);
    return node(level, start >> level);
  }
  const middle = start + split(size);
  return nodeHash(await rangeRoot(start, middle, node), await rangeRoot(middle, end, node));
}

// The largest power of two below `size`, which is above 1: where the RFC divides a tree.
const split = (size) => 1n << BigInt((size - 1n).toString(2).length - 1);
