// Verifies receipts with the console's module: a line of JSON each, {receipt: base64, key}; prints a line each.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { verify } = await import(pathToFileURL(process.argv[2]));
const { decodeBase64 } = await import(new URL("bytes.js", pathToFileURL(process.argv[2])));

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const { receipt, key } = JSON.parse(line);
  let said;
  try {
    const { statement, index, checkpoint, keyId } = await verify(decodeBase64(receipt), key);
    said = { subject: statement.subject[0].name, index: String(index), size: String(checkpoint.size), keyId };
  } catch (error) {
    said = { step: error.step ?? `not a ReceiptError: ${error.stack}`, reason: error.message };
  }
  console.log(JSON.stringify(said));
}
