"""A self-hosted, OpenAI-compatible home for fine-tuned models, where delete means deleted."""
