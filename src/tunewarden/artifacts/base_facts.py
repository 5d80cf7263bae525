"""What clients ask of a base and its directory tells: how long its context is, and what it can do."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tunewarden.tool_formats import may_write_calls

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
    templates = _templates(path)
    chats = ("chat", "responses") if templates else ()
    tools = ("tools",) if may_write_calls(templates) else ()
    return BaseFacts(context, ("completions", *chats, *tools, "fine_tuning"))


def _templates(path: Path) -> list[str]:
    """Return the chat templates: a file, or one or several named ones in the tokenizer's configuration."""
    file = path / "chat_template.jinja"
    if file.is_file():
        return [_text(file)]
    found = (_object(path / "tokenizer_config.json") or {}).get("chat_template")
    named = [one.get("template") for one in found or () if isinstance(one, dict)]
    return [one for one in ([found] if isinstance(found, str) else named) if isinstance(one, str)]


def _object(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(path: Path) -> str:
    """Return a file's text, up to BYTES_MAX; nothing if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
