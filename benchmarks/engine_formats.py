"""What rows with a schema cost the rows beside them in the embedded engine's batch.

`python -m benchmarks.engine_formats [BASE]`, on the demo's base by default. Free rows say a fixed number of tokens, beside
as many rows that are free, too, or that are held to a schema, in turns; their tokens a second are compared.
"""

import asyncio
import statistics
import sys
import time
from pathlib import Path

import msgspec
import torch
import tunewarden_demo

from tunewarden.embedded_engine.engine import Engine, Settings
from tunewarden.embedded_engine.generation import Generation
from tunewarden.embedded_engine.processors import threads_by_default
from tunewarden.embedded_engine.requests import parse_chat

ROWS, TOKENS, ROUNDS = 16, 200, 9
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mood": {"enum": ["good", "bad", "unknown"]},
        "at": {"type": "string", "format": "date"},
    },
    "required": ["name", "age", "mood", "at"],
    "additionalProperties": False,
}
# More than the rows can say, so that none ends early.
MANY = {"type": "array", "minItems": 1000, "items": PERSON}


def asked(*, is_held: bool) -> bytes:
    fields = {
        "model": "base",
        "messages": [{"role": "user", "content": "Hello"}],
        "n": ROWS,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "seed": 1,
    }
    return msgspec.json.encode(
        {**fields, "structured_outputs": {"json": MANY}} if is_held else fields
    )


async def say(generation: Generation) -> float:
    """Return the time that it took."""
    generation.start()
    began = time.perf_counter()
    while not generation.is_finished:
        await generation.next()
    return time.perf_counter() - began


async def together(engine: Engine, *, is_held: bool) -> float:
    """Return the tokens a second of the free rows."""
    both = [
        Generation(parse_chat(asked(is_held=held)), *engine.find("base"))
        for held in (False, is_held)
    ]
    for one in both:
        one.encode()
        one.hold()
    took, _ = await asyncio.gather(*(say(one) for one in both))
    return ROWS * TOKENS / took


async def run(base: Path) -> None:
    torch.set_num_threads(threads_by_default())
    engine = Engine(Settings())
    await engine.load_base("base", base)
    for is_held in (False, True):
        await together(engine, is_held=is_held)
    ratios = []
    for _ in range(ROUNDS):
        free = await together(engine, is_held=False)
        held = await together(engine, is_held=True)
        again = await together(engine, is_held=False)
        ratios.append(held / ((free + again) / 2))
        print(
            f"{free:8.0f} {held:8.0f} {again:8.0f} tokens/s: free, held, free; ratio {ratios[-1]:.3f}"
        )
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"median {statistics.median(ratios):.3f} ({spread}), {ROWS} rows beside {ROWS}")
    engine.stop()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1] if len(sys.argv) > 1 else tunewarden_demo.BASE)))
