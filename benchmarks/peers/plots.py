"""Draws what report.py gives it; runs in an environment that has matplotlib and nothing of ours."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

OURS, OTHER = "#c2410c", "#64748b"
QUANTILES = 1000


def main(given: str, out: str) -> None:
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    # The same figures must give the same bytes.
    matplotlib.rcParams["svg.hashsalt"] = "tunewarden"
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["font.size"] = 9
    pyplot = importlib.import_module("matplotlib.pyplot")
    found = json.loads(Path(given).read_text())
    _save(_throughput(pyplot, found["bars"]), Path(out) / "throughput.svg")
    _save(_latency(pyplot, found["curves"]), Path(out) / "latency.svg")
    if found["times"]:
        _save(_times(pyplot, found["times"]), Path(out) / "deletion.svg")


def _throughput(pyplot: Any, bars: dict[str, list[tuple[str, float, float, float]]]) -> Any:
    shown = {what: rows for what, rows in bars.items() if "1 connection" not in what}
    figure, all_axes = pyplot.subplots(1, max(1, len(shown)), figsize=(10, 3.6), squeeze=False)
    for axes, (what, rows) in zip(all_axes[0], shown.items(), strict=True):
        ordered = sorted(rows, key=lambda row: row[1])
        names = [row[0] for row in ordered]
        rates = [row[1] for row in ordered]
        errors = [
            [max(0, row[1] - row[2]) for row in ordered],
            [max(0, row[3] - row[1]) for row in ordered],
        ]
        axes.barh(
            names,
            rates,
            color=[_color(name) for name in names],
            xerr=errors,
            ecolor="#0f172a",
            capsize=2,
        )
        for place, rate in enumerate(rates):
            axes.annotate(
                f" {rate:,.0f}",
                (rate, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
        axes.set_xscale("log")
        axes.set_xlim(right=max(rates) * 6)
        axes.set_title(what)
        axes.set_xlabel("a second, one gateway process on one processor (log)")
    return figure


def _latency(pyplot: Any, curves: dict[str, list[float]]) -> Any:
    figure, axes = pyplot.subplots(figsize=(8, 4))
    ordered = sorted(curves, key=lambda name: curves[name][QUANTILES // 2])
    for name in ordered:
        style: dict[str, object] = (
            {"color": OURS, "linewidth": 2.2} if _color(name) == OURS else {"linewidth": 1.1}
        )
        if "remote" in name:
            style["linestyle"] = "--"
        points = range(0, QUANTILES, 10)
        axes.plot(
            [curves[name][at] / 1000 for at in points],
            [at / QUANTILES for at in points],
            label=name,
            **style,
        )
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds (log)")
    axes.set_ylabel("share of requests that took no longer")
    axes.set_title("JSON chat, 1 connection")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    return figure


def _times(pyplot: Any, times: dict[str, list[float]]) -> Any:
    figure, axes = pyplot.subplots(figsize=(8, 3.6))
    for what, seconds in times.items():
        ordered = sorted(seconds)
        style = {"color": OURS, "linewidth": 2.2} if what.startswith("last") else {"linewidth": 1.3}
        shares = [(at + 1) / len(ordered) for at in range(len(ordered))]
        axes.step([second * 1000 for second in ordered], shares, where="post", label=what, **style)
    axes.axvline(50, color=OURS, linestyle=":", linewidth=1)
    axes.annotate("goal of revocation, p99", (50, 0.02), fontsize=7, color=OURS)
    axes.set_xlabel("milliseconds since the DELETE was sent")
    axes.set_ylabel("share that took no longer")
    axes.set_xlim(left=0)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    return figure


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _color(name: str) -> str:
    return OURS if name.startswith("Tunewarden") else OTHER


if __name__ == "__main__":
    main(*sys.argv[1:])
