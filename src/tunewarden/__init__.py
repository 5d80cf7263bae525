"""A self-hosted, OpenAI-compatible home for fine-tuned models, where delete means deleted."""

__version__ = "0.2.0"
