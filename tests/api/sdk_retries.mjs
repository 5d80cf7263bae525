// Run by test_cut_answers.py: deletes the given models through the npm SDK, one after the other.
// node sdk_retries.mjs MODULE BASE_URL KEY MODEL...
import { pathToFileURL } from "node:url";

const [module, baseURL, apiKey, ...models] = process.argv.slice(2);
const { default: OpenAI } = await import(pathToFileURL(module).href);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 20 });
for (const model of models) {
  let deleted;
  try {
    deleted = await client.models.delete(model);
  } catch (error) {
    // This SDK does not retry an answer whose body broke off after its headers: the caller is told
    // that the connection broke, and nothing else. Any error of the API would be a lie.
    if (error instanceof OpenAI.APIError && error.status !== undefined) throw error;
    continue;
  }
  if (deleted.id !== model || deleted.deleted !== true) throw new Error(JSON.stringify(deleted));
}
let second = 0;
try {
  await new OpenAI({ baseURL, apiKey, maxRetries: 0 }).models.delete(models[0]);
} catch (error) {
  second = error.status ?? error.constructor.name;
}
console.log(`deleted ${models.length}, a second time: ${second}`);
