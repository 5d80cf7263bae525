"""What clients ask of a base and its directory tells: how long its context is, and what it can do."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

BYTES_MAX = 16 * 1024 * 1024
# GPT-2's name is the second.
CONTEXT_NAMES = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """`context` is in tokens, None if unknown; `capabilities` are those of the base and of fine-tunes of it."""

    context: int | None
    capabilities: tuple[str, ...]


@lru_cache(maxsize=256)
def base_facts(directory: str) -> BaseFacts | None:
    """Return what a local base's directory tells, as it was when first asked; None if it has no readable config."""
    path = Path(directory)
    config = _object(path / "config.json")
    if config is None:
        return None
    # A multimodal model describes its language model apart.
    text = config.get("text_config")
    described = text if isinstance(text, dict) else config
    found = [described.get(name) for name in CONTEXT_NAMES]
    context = next((one for one in found if type(one) is int and one > 0), None)
    tokenizer = _object(path / "tokenizer_config.json") or {}
    chats = bool(tokenizer.get("chat_template")) or (path / "chat_template.jinja").is_file()
    return BaseFacts(
        context, ("completions", *(("chat", "responses") if chats else ()), "fine_tuning")
    )


def _object(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
