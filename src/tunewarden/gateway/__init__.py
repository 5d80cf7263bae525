"""The hot path: from a client's connection to an engine and back, without an asyncio task per request."""
