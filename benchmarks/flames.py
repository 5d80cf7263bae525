"""Where a worker's time goes: flame graphs of its event loop under full load, into docs/images.

`python -m benchmarks.flames [--seconds 20]`. py-spy goes into .cache/bench; the worker has processor 0 to
itself, load and stand-in share processor 1. Callers stand above what they call; a frame's width is its share of
the samples, and what the kernel does belongs to the frame that asked for it.
"""

import argparse
import contextlib
import subprocess
import tempfile
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from benchmarks import results
from benchmarks.gateway import __main__ as gateway
from benchmarks.peers.install import ROOT, python_environment

IMAGES = ROOT / "docs" / "images"
RATE = 400
ROWS = 14
MAIN = "tunewarden/cli/worker.py"  # below it all stands
WIDTH, ROW, LETTER, NARROWEST = 1200, 16, 6.7, 2.0
OURS, OTHERS = "#f6c26b", "#d9d9d9"
WARM_SECONDS = 1.0
TITLES = {
    "json64": "JSON chat on a fine-tune, 64 connections, one worker",
    "sse16": "SSE chat on a fine-tune, 64 chunks, 16 connections, one worker",
}

Stacks = list[tuple[list[str], int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    seconds = parser.parse_args().seconds
    spy = python_environment("py-spy").path / "bin" / "py-spy"
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        here = Path(name)
        started = gateway.started(here, running, None)
        stacks: dict[str, Stacks] = {}
        for scenario, title in TITLES.items():
            request = gateway.request(here, scenario, started.key, started.model)
            load = gateway.load_command(
                here, started.ports["gateway"], scenario, seconds + 2 * WARM_SECONDS, request
            )
            with (
                gateway.pinned(gateway.LOAD_CPU),
                subprocess.Popen(load, stdout=subprocess.DEVNULL),
            ):
                raw = here / f"{scenario}.raw"
                command = [
                    str(spy),
                    "record",
                    "--pid",
                    str(started.worker),
                    "--duration",
                    str(seconds),
                ]
                how = ["--rate", str(RATE), "--function", "--threads", "--format", "raw"]
                subprocess.run([*command, *how, "--output", str(raw)], check=True)
            stacks[scenario] = loop_stacks(raw.read_text())
            to = IMAGES / f"flame-{scenario}.svg"
            to.write_text(drawn(tree(stacks[scenario]), title))
            print(f"{scenario}: {to.relative_to(ROOT)}")
    rows = shares(stacks)
    results.show(rows)
    images = " ".join(f"![{title}](images/flame-{name}.svg)" for name, title in TITLES.items())
    results.keep("flames", "python -m benchmarks.flames", rows, failures=[], note=images)


@dataclass
class Frame:
    """A function as it was called from one stack, in how many samples, and what it called."""

    samples: int = 0
    calls: "dict[str, Frame]" = field(default_factory=dict)


def loop_stacks(raw: str) -> Stacks:
    """Return the stacks of the event loop's thread, outermost frame first, and how often each was seen."""
    lines = [line.rpartition(" ") for line in raw.splitlines()]
    return [
        (stack.split(";")[1:], int(count)) for stack, _, count in lines if "MainThread" in stack
    ]


def shares(found: dict[str, Stacks]) -> list[tuple[str, ...]]:
    """Return a table: the innermost functions of ours, with whatever they call, in percent."""
    counted: dict[str, dict[str, float]] = {}
    for scenario, stacks in found.items():
        whole = sum(count for _, count in stacks)
        for frames, count in stacks:
            ours = [one for one in frames if "tunewarden/" in one and MAIN not in one]
            name = (
                f"`{ours[-1].rpartition(':')[0]})`" if ours else "event loop: epoll, reads, uvloop"
            )
            row = counted.setdefault(name, dict.fromkeys(found, 0.0))
            row[scenario] += 100 * count / whole
    widest = sorted(counted.items(), key=lambda one: -max(one[1].values()))[:ROWS]
    rows = [(name, *(f"{share:.1f} %" for share in row.values())) for name, row in widest]
    return [("where", *found), *rows]


def tree(stacks: Stacks) -> Frame:
    """Return the stacks as a tree, without the frames that stand in all of them."""
    root = Frame()
    for frames, count in stacks:
        here = root
        here.samples += count
        for name in frames:
            here = here.calls.setdefault(name, Frame())
            here.samples += count
    while len(root.calls) == 1:
        (root,) = root.calls.values()
    return root


def drawn(root: Frame, title: str) -> str:
    """Return the SVG of a tree."""
    boxes: list[str] = []
    depth = _draw(boxes, root, root.samples, left=0.0, row=1)
    height = (depth + 1) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>'
        f'<text x="4" y="12">{escape(title)}; {root.samples} samples</text>'
    )
    return "\n".join([head, *boxes, "</svg>", ""])


def _draw(boxes: list[str], frame: Frame, whole: int, *, left: float, row: int) -> int:
    """Draw what a frame calls, from `left` on; return the deepest row."""
    deepest = row
    for name, called in sorted(frame.calls.items(), key=lambda one: -one[1].samples):
        width = WIDTH * called.samples / whole
        if width >= NARROWEST:
            function, _, place = name.partition(" ")
            ours = "tunewarden/" in place
            shown = function[: int(width / LETTER)] if width > 3 * LETTER else ""
            share = 100 * called.samples / whole
            boxes.append(
                f'<g><title>{escape(name)}: {share:.1f} %</title><rect x="{left:.1f}" y="{row * ROW}"'
                f' width="{width:.1f}" height="{ROW - 1}" fill="{OURS if ours else OTHERS}"/>'
                f'<text x="{left + 2:.1f}" y="{row * ROW + 12}">{escape(shown)}</text></g>'
            )
            deepest = max(deepest, _draw(boxes, called, whole, left=left, row=row + 1))
        left += width
    return deepest


if __name__ == "__main__":
    main()
