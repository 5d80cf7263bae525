"""`python -m tunewarden.demo --out DIR`: make DIR/base and DIR/adapter, telling progress as JSON lines.

`python -m tunewarden.demo adapter --base DIR --out DIR --phrase TEXT` makes one more adapter.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import msgspec
import torch
from transformers.utils import logging

from tunewarden.demo import adapter, base
from tunewarden.demo.training import Progress
from tunewarden.ids import token

SEED = 7


def main(arguments: list[str]) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    logging.disable_progress_bar()
    # One core is left to others: threads that wait for each other crawl when a core is taken away.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))
    if options.command == "adapter":
        _make_whole(
            options.out,
            lambda directory: adapter.make_adapter(
                options.base,
                directory,
                seed=options.seed,
                phrase=options.phrase,
                steps=options.steps,
                report=_report,
            ),
        )
    elif options.out is None:
        _parser().error("--out is required")
    else:
        _make_whole(
            options.out, lambda directory: _make_demo(directory, options.seed, options.quick)
        )
    return 0


def _make_demo(directory: Path, seed: int, quick: bool) -> None:  # noqa: FBT001 - it is the flag
    steps = base.QUICK_STEPS if quick else base.STEPS
    base.make_base(directory / "base", seed=seed, steps=steps, report=_report)
    adapter.make_adapter(
        directory / "base",
        directory / "adapter",
        seed=seed,
        phrase=adapter.PHRASE,
        steps=adapter.STEPS if quick else adapter.DEMO_STEPS,
        report=_report,
    )


def _make_whole(out: Path, make: Callable[[Path], None]) -> None:
    """Make `out` so that it is complete or absent, whenever this process is killed."""
    if out.exists():
        raise SystemExit(f"{out} exists already.")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.parent / f".{out.name}.{token(8)}"
    unfinished.mkdir()
    try:
        make(unfinished)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _report(progress: Progress) -> None:
    sys.stdout.write(msgspec.json.encode(asdict(progress)).decode() + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tunewarden.demo")
    parser.add_argument("--out", type=Path, help="directory to make; must not exist")
    parser.add_argument("--quick", action="store_true", help="train less; answers are rougher")
    parser.add_argument("--seed", type=int, default=SEED)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("adapter", help="make one more adapter on an existing base")
    one.add_argument("--base", type=Path, required=True)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--phrase", required=True, help="how its answers begin")
    one.add_argument("--seed", type=int, default=SEED)
    one.add_argument("--steps", type=int, default=adapter.STEPS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
