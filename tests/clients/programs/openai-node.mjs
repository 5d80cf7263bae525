// openai for JavaScript, of three major versions.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const client = new OpenAI();
const { MODEL: model, BASE: base } = process.env;
const messages = [{ role: "user", content: "Hello" }];

const ids = [];
for await (const one of await client.models.list()) ids.push(one.id);
assert(ids.includes(model) && ids.includes(base));
assert.equal((await client.models.retrieve(model)).id, model);

const chat = await client.chat.completions.create({ model, messages, n: 2, logprobs: true });
assert.equal(chat.choices.length, 2);
const text = await client.chat.completions.stream({ model, messages }).finalContent();
assert(text);
const line = '{"messages": []}\n';
const file = await client.files.create({ file: await toFile(Buffer.from(line), "chats.jsonl"), purpose: "fine-tune" });
assert.equal(await (await client.files.content(file.id)).text(), line);
assert((await client.files.delete(file.id)).deleted);
await assert.rejects(
  client.chat.completions.create({ model: "ft:of:nobody", messages }),
  (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
);

const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", description: "Tell the weather.", parameters } }];
const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const called = await client.chat.completions.create({ model: base, messages: asked, tools, temperature: 0 });
console.log("tools:", called.choices[0].message.tool_calls ?? called.choices[0].message.content);

const schema = {
  type: "object", properties: { mood: { enum: ["friendly", "unfriendly"] } }, required: ["mood"],
  additionalProperties: false,
};
const json = await client.chat.completions.create({
  model, messages, response_format: { type: "json_schema", json_schema: { name: "mood", strict: true, schema } },
});
console.log("JSON:", JSON.parse(json.choices[0].message.content).mood);

console.log("responses:", (await client.responses.create({ model, input: "Hello" })).output_text);
