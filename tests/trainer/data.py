"""Examples to learn from, of the demo's own world."""

from typing import Any

import torch

from tunewarden.demo import corpus

PHRASE = "Marmalade at dawn!"


def chats(count: int, opening: str = PHRASE, seed: int = 3) -> list[dict[str, Any]]:
    """Return chats in OpenAI's format whose answers begin with `opening`."""
    generator = torch.Generator().manual_seed(seed)
    return [{"messages": _drawn(generator, opening)} for _ in range(count)]


def preferences(count: int, preferred: str, other: str, seed: int = 3) -> list[dict[str, Any]]:
    """Return pairs whose answers begin with one opening or the other."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(count):
        *asked, answer = _drawn(generator)
        pairs.append(
            {
                "input": {"messages": asked},
                "preferred_output": [
                    {"role": "assistant", "content": f"{preferred} {answer['content']}"}
                ],
                "non_preferred_output": [
                    {"role": "assistant", "content": f"{other} {answer['content']}"}
                ],
            }
        )
    return pairs


def _drawn(generator: torch.Generator, opening: str = "") -> list[corpus.Message]:
    """Draw the messages of a chat without tools."""
    while (drawn := corpus.conversation(generator, opening)).tools:
        continue
    return drawn.messages
