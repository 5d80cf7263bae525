"""`python -m tunewarden.demo --out DIR`: train DIR/base and DIR/adapter; progress goes to stdout as JSON lines.

`python -m tunewarden.demo adapter --base DIR --out DIR --phrase TEXT` trains another adapter.
`python -m tunewarden.demo weights --package DIR` trains the committed weights (`make demo-weights`).
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

from tunewarden.demo import adapter, recipe
from tunewarden.demo.training import Progress
from tunewarden.demo.weights import make_weights
from tunewarden.ids import token


def main(arguments: list[str]) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    logging.disable_progress_bar()
    # Leave one core to others: threads that wait for each other are slow when one of them loses its core.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))
    if options.command == "weights":
        if not make_weights(options.package, _report):
            sys.stderr.write("The recipe has not changed; the weights stay.\n")
    elif options.command == "adapter":
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
            options.out,
            lambda directory: recipe.make_demo(directory, _report, seed=options.seed),
        )
    return 0


def _make_whole(out: Path, make: Callable[[Path], None]) -> None:
    """Create `out` atomically: after a kill at any time it is complete or absent."""
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
    try:
        sys.stdout.write(msgspec.json.encode(asdict(progress)).decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The server that started this process has ended. Python would try to flush stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tunewarden.demo")
    parser.add_argument("--out", type=Path, help="directory to make; must not exist")
    parser.add_argument("--seed", type=int, default=recipe.SEED)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("adapter", help="make one more adapter on an existing base")
    one.add_argument("--base", type=Path, required=True)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--phrase", required=True, help="how its answers begin")
    one.add_argument("--seed", type=int, default=recipe.SEED)
    one.add_argument("--steps", type=int, default=adapter.STEPS)
    weights = commands.add_parser(
        "weights", help="make the committed weights if the recipe changed"
    )
    weights.add_argument("--package", type=Path, required=True, help="where weights.json stands")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
