"""The weights of Tunewarden's demo: a small base model and a fine-tune of it, in bfloat16."""

from pathlib import Path

_HERE = Path(__file__).parent
# A Hugging Face model directory, and a PEFT LoRA on it.
BASE = _HERE / "base"
ADAPTER = _HERE / "adapter"
