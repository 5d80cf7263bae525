"""The embedded engine: several LoRA adapters in one batch, in a process of its own."""
