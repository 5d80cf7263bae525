// LangChain in JavaScript: batches, tools, structured output, completions.
import assert from "node:assert/strict";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAI } from "@langchain/openai";
import { z } from "zod";

const configuration = { baseURL: process.env.OPENAI_BASE_URL };
const llm = new ChatOpenAI({ model: process.env.MODEL, configuration });
const base = new ChatOpenAI({ model: process.env.BASE, configuration });
assert.equal((await llm.batch(["Hello", "Hello"])).length, 2);
const completions = new OpenAI({ model: process.env.MODEL, maxTokens: 2, configuration });
assert.equal((await completions.generate(Array(20).fill("Hello"))).generations.length, 20);

const weather = tool(({ city }) => `sunny in ${city}`, {
  name: "get_weather", description: "Tell the weather of a city.", schema: z.object({ city: z.string() }),
});
const answer = await base.bindTools([weather]).invoke("What is the weather in Paris?");
console.log("tools:", answer.tool_calls, answer.content);
const Mood = z.object({ mood: z.enum(["friendly", "unfriendly"]) });
console.log(await llm.withStructuredOutput(Mood, { name: "mood" }).invoke("Hello"));
