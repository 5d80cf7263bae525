// Vercel AI SDK by `openai(id)`, whose default is Responses.
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL });
console.log((await generateText({ model: openai(process.env.MODEL), prompt: "Hello" })).text);
const streamed = streamText({
  model: openai(process.env.MODEL), prompt: "Hello", onError: ({ error }) => { throw error; },
});
for await (const part of streamed.textStream) process.stdout.write(part);
const tools = {
  get_weather: tool({
    description: "Tell the weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};
const asked = await generateText({ model: openai(process.env.BASE), tools, prompt: "What is the weather in Paris?" });
console.log(asked.text, asked.toolCalls.length);
const schema = z.object({ mood: z.enum(["friendly", "unfriendly"]) });
console.log((await generateObject({ model: openai(process.env.MODEL), schema, prompt: "Hello" })).object);
