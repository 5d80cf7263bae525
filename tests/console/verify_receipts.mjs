// Verifies receipts with the console's modules: a line of JSON each, {receipt: base64, key}, in a chain of keys if it has
// `handOvers` (base64); prints a line each.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const module = pathToFileURL(process.argv[2]);
const { subjectOf, verify } = await import(module);
const { parseChain, verifyInChain } = await import(new URL("key_chain.js", module));
const { decodeBase64 } = await import(new URL("bytes.js", module));

async function judged({ receipt, key, handOvers }) {
  const bytes = decodeBase64(receipt);
  if (handOvers === undefined) return verify(bytes, key);
  return verifyInChain(bytes, await parseChain(decodeBase64(handOvers), key));
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  let said;
  try {
    const proven = await judged(JSON.parse(line));
    const { index, checkpoint, keyId } = proven;
    said = { subject: subjectOf(proven), index: String(index), size: String(checkpoint.size), keyId };
  } catch (error) {
    said = { step: error.step ?? `not a ReceiptError: ${error.stack}`, reason: error.message };
  }
  console.log(JSON.stringify(said));
}
