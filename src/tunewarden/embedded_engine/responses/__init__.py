"""OpenAI's Responses API, translated into a chat and back: there is no second way to generate."""
