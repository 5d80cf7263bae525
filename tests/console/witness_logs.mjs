// Visits logs with the console's module: a line of JSON each, a list of visits {note, key, handOvers: base64, tiles: {path: base64}}.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { witness, tilePath } = await import(pathToFileURL(process.argv[2]));
const { decodeBase64 } = await import(new URL("bytes.js", pathToFileURL(process.argv[2])));

function storage() {
  const kept = new Map();
  return {
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => kept.set(name, value),
    removeItem: (name) => kept.delete(name),
  };
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const browser = storage();
  const found = [];
  for (const { note, key, handOvers, tiles, kept } of JSON.parse(line)) {
    if (kept) browser.setItem("tunewarden-log", kept);
    const read = async (path) => {
      if (!(path in tiles)) throw new Error(`no tile ${path}`);
      return decodeBase64(tiles[path]);
    };
    try {
      const visit = await witness(browser, { note, key, handOvers: decodeBase64(handOvers) }, read);
      found.push([visit.found, visit.reason]);
    } catch (error) {
      found.push(["unknown", error.message]);
    }
  }
  console.log(JSON.stringify({ found, far: tilePath(0n, 1234067n, 256n) }));
}
