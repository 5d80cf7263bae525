"""Makes vLLM an engine of Tunewarden: an ASGI middleware and a worker extension."""
