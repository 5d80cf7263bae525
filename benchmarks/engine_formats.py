"""What rows with a schema cost the rows beside them in the embedded engine's batch.

`python -m benchmarks.engine_formats [BASE]`, on the demo's base by default. Free rows say a fixed number of tokens, beside
as many rows that are free, too, or that are held to a schema, in turns. Their tokens a second are compared, and, because
others on the machine disturb these, the tokens for a second of processor time of this process, in which nothing else runs.
Others lengthen that, too, through the caches, so the quickest rounds of each are compared in the end.
"""

import argparse
import asyncio
import statistics
import time
from pathlib import Path

import msgspec
import torch
import tunewarden_demo
from benchmarks.peers.ratios import bootstrap

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


async def together(engine: Engine, *, is_held: bool) -> tuple[float, float]:
    """Return the tokens of the free rows for a second, and for a second of processor time."""
    both = [
        Generation(parse_chat(asked(is_held=held)), *engine.find("base"))
        for held in (False, is_held)
    ]
    for one in both:
        one.encode()
        one.hold()
    worked = time.process_time()
    took, _ = await asyncio.gather(*(say(one) for one in both))
    return ROWS * TOKENS / took, ROWS * TOKENS / (time.process_time() - worked)


async def run(base: Path, rounds: int) -> None:
    torch.set_num_threads(threads_by_default())
    engine = Engine(Settings())
    await engine.load_base("base", base)
    for is_held in (False, True):
        await together(engine, is_held=is_held)
    ratios: tuple[list[float], list[float]] = [], []
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        free, held, again = [
            await together(engine, is_held=is_held) for is_held in (False, True, False)
        ]
        rates[False] += free[1], again[1]
        rates[True].append(held[1])
        for at, found in enumerate(ratios):
            found.append(held[at] / ((free[at] + again[at]) / 2))
        print(
            f"{free[0]:8.0f} {held[0]:8.0f} {again[0]:8.0f} tokens/s: free, held, free;"
            f" ratio {ratios[0][-1]:.3f}, by processor time {ratios[1][-1]:.3f}"
        )
    for what, found in zip(("tokens/s", "by processor time"), ratios, strict=True):
        low, high = bootstrap(found)
        print(f"{what}: median {statistics.median(found):.3f} ({low:.3f} to {high:.3f})")
    quickest = {is_held: sorted(found)[-len(found) // 5 :] for is_held, found in rates.items()}
    quick = statistics.mean(quickest[True]) / statistics.mean(quickest[False])
    print(f"by processor time, the quickest fifth of the rounds of each: {quick:.3f}")
    print(f"{ROWS} rows beside {ROWS}, {rounds} rounds")
    engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path, nargs="?", default=Path(tunewarden_demo.BASE))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    asyncio.run(run(options.base, options.rounds))


if __name__ == "__main__":
    main()
