"""What rows with a schema cost the rows beside them in the embedded engine's batch.

`python -m benchmarks.engine_formats [BASE | --large]`, on the demo's base by default; `--large` is one as large as the
smallest that people use (large_base.py). Free rows say a fixed number of tokens, beside as many rows that are free, too, or
that are held to a schema, in turns. Their tokens a second are compared, and, because others on the machine disturb these,
the tokens for a second of processor time of this process, in which nothing else runs. Others lengthen that, too, through
the caches, so the quickest rounds of each are compared in the end. What the masks take of the held rounds is shown beside
that: it is a part of what such rows cost, not all.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
import tunewarden_demo
from benchmarks.large_base import make_once
from benchmarks.peers.ratios import bootstrap

from tunewarden.embedded_engine import sampling
from tunewarden.embedded_engine.engine import Engine, Settings
from tunewarden.embedded_engine.generation import Generation
from tunewarden.embedded_engine.processors import threads_by_default
from tunewarden.embedded_engine.requests import parse_chat

ROWS, TOKENS, ROUNDS = 16, 200, 9
# A step of the large base takes as long as a hundred of the demo's.
LARGE_TOKENS = 24
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


class MaskTime:
    """The processor time that the step thread takes to find and to apply masks."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in ("hold", "follow"):
            setattr(sampling, name, self._timed(getattr(sampling, name)))

    def _timed(self, work: Callable[..., None]) -> Callable[..., None]:
        def timed(*given: Any) -> None:
            began = time.thread_time()
            work(*given)
            self.seconds += time.thread_time() - began

        return timed


def asked(*, is_held: bool, tokens: int) -> bytes:
    fields = {
        "model": "base",
        "messages": [{"role": "user", "content": "Hello"}],
        "n": ROWS,
        "max_tokens": tokens,
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


async def together(engine: Engine, *, is_held: bool, tokens: int) -> tuple[float, float]:
    """Return the tokens of the free rows for a second, and for a second of processor time."""
    both = [
        Generation(parse_chat(asked(is_held=held, tokens=tokens)), *engine.find("base"))
        for held in (False, is_held)
    ]
    for one in both:
        one.encode()
        one.hold()
    worked = time.process_time()
    took, _ = await asyncio.gather(*(say(one) for one in both))
    return ROWS * tokens / took, ROWS * tokens / (time.process_time() - worked)


async def run(base: Path, rounds: int, tokens: int) -> None:
    torch.set_num_threads(threads_by_default())
    engine = Engine(Settings())
    await engine.load_base("base", base)
    masks, shares = MaskTime(), []
    for is_held in (False, True):
        await together(engine, is_held=is_held, tokens=tokens)
    ratios: tuple[list[float], list[float]] = [], []
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        masks.seconds = 0.0
        free, held, again = [
            await together(engine, is_held=is_held, tokens=tokens)
            for is_held in (False, True, False)
        ]
        shares.append((masks.seconds / tokens, masks.seconds / (ROWS * tokens / held[1])))
        rates[False] += free[1], again[1]
        rates[True].append(held[1])
        for at, found in enumerate(ratios):
            found.append(held[at] / ((free[at] + again[at]) / 2))
        print(
            f"{free[0]:8.0f} {held[0]:8.0f} {again[0]:8.0f} tokens/s: free, held, free;"
            f" ratio {ratios[0][-1]:.3f}, by processor time {ratios[1][-1]:.3f}; masks {shares[-1][1]:.1%}",
            flush=True,
        )
    for what, found in zip(("tokens/s", "by processor time"), ratios, strict=True):
        low, high = bootstrap(found)
        print(f"{what}: median {statistics.median(found):.3f} ({low:.3f} to {high:.3f})")
    quickest = {is_held: sorted(found)[-len(found) // 5 :] for is_held, found in rates.items()}
    quick = statistics.mean(quickest[True]) / statistics.mean(quickest[False])
    print(f"by processor time, the quickest fifth of the rounds of each: {quick:.3f}")
    step, share = (statistics.median(found) for found in zip(*shares, strict=True))
    print(f"masks: {step * 1000:.2f} ms a step, {share:.1%} of the processor time (medians)")
    length = ROWS / statistics.median(rates[False]) * 1000
    print(
        f"a step of free rows: {length:.1f} ms of processor time, the reading of prompts included"
    )
    print(f"{ROWS} rows beside {ROWS}, {tokens} tokens, {rounds} rounds")
    engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    base = parser.add_mutually_exclusive_group()
    base.add_argument("base", type=Path, nargs="?", default=Path(tunewarden_demo.BASE))
    base.add_argument("--large", action="store_true", help="a base that is made once, in .cache")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tokens", type=int, help=f"default: {TOKENS}, or {LARGE_TOKENS}")
    options = parser.parse_args()
    tokens = options.tokens or (LARGE_TOKENS if options.large else TOKENS)
    asyncio.run(run(make_once() if options.large else options.base, options.rounds, tokens))


if __name__ == "__main__":
    main()
