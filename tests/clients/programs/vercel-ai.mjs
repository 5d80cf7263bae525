// Vercel AI SDK by openai-compatible and openai.chat: tools, objects.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, tool } from "ai";
import { z } from "zod";

const settings = { baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY };
const compatible = createOpenAICompatible({ name: "tunewarden", supportsStructuredOutputs: true, ...settings });
const openai = createOpenAI(settings);
const tools = {
  get_weather: tool({
    description: "Tell the weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};
const schema = z.object({ mood: z.enum(["friendly", "unfriendly"]) });
for (const make of [compatible, openai.chat]) {
  const asked = await generateText({ model: make(process.env.BASE), tools, prompt: "What is the weather in Paris?" });
  console.log(asked.text, asked.toolCalls.length);
  console.log((await generateObject({ model: make(process.env.MODEL), schema, prompt: "Hello" })).object);
}
