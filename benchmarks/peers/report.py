"""docs/performance.md: each goal of the design with the measured ratio beside it, and the tables behind it."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import engine_report, results, revocation
from benchmarks.peers import install, subjects
from benchmarks.peers.install import NotInstalled
from benchmarks.peers.ratios import Ratio, bootstrap, ratio, shown
from benchmarks.peers.requests import SCENARIOS, Scenario
from benchmarks.peers.samples import (
    QUIET_ROUNDS_MIN,
    Found,
    best_first,
    counted_rounds,
    has_failed,
    quiet,
    value_of,
)
from benchmarks.peers.sampling import DISTURBED

PAGE = install.ROOT / "docs" / "performance.md"
IMAGES = install.ROOT / "docs" / "images"
NOISY = " ~"
NO_FIGURE = "no figure: the peer is not here, or its row says why"
COUNTERPARTS = {
    subjects.TUNEWARDEN: subjects.NGINX,
    subjects.TUNEWARDEN_REMOTE: subjects.NGINX_TCP,
}
NOT_MEASURED = (
    (
        "`GET /v1/models` at 100,000 models / retrieve at 1,000,000",
        "streamed, flat memory / same as at 1,000",
        "not here: `python -m benchmarks.scale` (takes long)",
    ),
)
Row = tuple[str, ...]


def surroundings(rounds: int, seconds: float) -> Found:
    """When, where and how."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in cpus if line.startswith("model name")), "?")
    total = Path("/proc/meminfo").read_text().split()[1]
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} x {model}, {int(total) / 2**20:.0f} GiB, "
        f"Linux {platform.release()}, CPython {platform.python_version()}",
        "rounds": rounds,
        "seconds": seconds,
    }


def write(found: Found) -> None:
    """Write the page and its plots; without matplotlib, the page alone."""
    PAGE.write_text(text(found))
    try:
        plots = install.python_environment("plots")
    except NotInstalled as reason:
        print(f"no plots: {reason}")
        return
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(_for_plots(found))
        file.flush()
        program = str(Path(__file__).with_name("plots.py"))
        command = [str(plots.path / "bin" / "python"), program, file.name, str(IMAGES)]
        subprocess.run(command, check=True, stdout=sys.stderr)


def text(found: Found) -> str:
    """Return the page."""
    kept = engine_report.last()
    engine = [engine_report.section(kept)] if kept else []
    parts = [
        _head(found),
        _goals(found),
        *_tables(found),
        *engine,
        *results.sections(),
        _peers(found),
        _tail(found),
    ]
    return "\n\n".join(parts) + "\n"


def _head(found: Found) -> str:
    samples = [one for rounds in found["samples"].values() for one in rounds if one]
    noisy = sum(1 for one in samples if one["disturbance"] >= DISTURBED)
    return f"""# Performance

Written by `make bench`, on {found["day"]}: {found["machine"]}; {found["rounds"]} rounds, samples of {found["seconds"]} s after a warm-up.

Everything is started once and measured in turn, in random order. The gateway has processor 0 to itself (one
worker), the stand-in for the engine and the load generator (both C: `benchmarks/gateway/`) share processor 1. A ratio
is the median of the rounds' ratios, with the 95 % interval of a bootstrap over the rounds. Take the ratios; the figures
move with the machine. A sample counts if others used less than {DISTURBED} processors meanwhile: {noisy} of {len(samples)} were
disturbed. Where fewer than {QUIET_ROUNDS_MIN} rounds were quiet, all count, and a `~` says so: such a figure is no evidence.
DELETE, revocation and start have no such check: what else ran on the machine is in their times."""


def _goals(found: Found) -> str:
    rows = [
        *_gateway_goals(found),
        *_deletion_goals(found["beside"]),
        *NOT_MEASURED,
        _engine_goal(),
        *_start_goals(found["beside"]),
    ]
    heads = ("work", "goal", "measured")
    note = (
        "*fine-tune*: every check on, the kernel's guard and the model's state included, engine on a unix socket, beside "
        "nginx on the same socket. *remote base*: no guard, because nothing of it can be deleted; over TCP, as the peers. "
        "*by processor time*: requests for each second that the processes of a gateway worked, of all rounds."
    )
    return f"## Goals\n\n{_table(heads, rows)}\n\n{note}"


def _gateway_goals(found: Found) -> list[Row]:
    goals = (
        ("json64", "nginx", "≥ 0.5 x nginx as a plain proxy"),
        ("json64", subjects.VLLM, "≥ 2 x vLLM's Rust router"),
        ("json64", subjects.LITELLM, "≥ 200 x LiteLLM"),
        ("json1", "nginx", "p50 ≤ 1.5 x nginx's"),
        ("sse16", "nginx", "≥ 1 x nginx"),
        ("sse16", subjects.VLLM, "≥ 1.3 x vLLM's router"),
    )
    rows: list[Row] = []
    for scenario, peer, goal in goals:
        said = []
        for ours, nginx in COUNTERPARTS.items():
            other = nginx if peer == "nginx" else peer
            measured = _compared(found, SCENARIOS[scenario], ours, other)
            if measured:
                cost = _by_processor(found, SCENARIOS[scenario], ours, other)
                said.append(f"{ours.partition(', ')[2]} {measured}{cost}")
        rows.append((SCENARIOS[scenario].what, goal, "; ".join(said) or NO_FIGURE))
    return rows


def _deletion_goals(beside: Found) -> list[Row]:
    rows: list[Row] = []
    if measured := beside.get("deletes"):
        against = ratio(measured["deletes/s"], measured["commits/s"])
        syncs = ratio(measured["deletes/s"], measured["fdatasyncs/s"])
        middle = [statistics.median(measured[name]) for name in ("deletes/s", "commits/s")]
        p50 = statistics.median(measured["seconds"]) * 1000
        rows += [
            (
                "DELETE, durable, 8 at once, 4 workers",
                "≥ 0.2 x the machine's durable commits",
                f"{against} x commits of one row ({shown(middle[0])}/s beside {shown(middle[1])}/s); {syncs} x fdatasync of 4 KiB",
            ),
            (
                "",
                "p50 ≤ 15 ms",
                f"{p50:.1f} ms; p99 {_percentile(measured['seconds'], 99) * 1000:.1f} ms",
            ),
        ]
    if measured := beside.get("revocations"):
        last = measured[revocation.LAST_OUTPUT]
        p99 = _percentile(last, 99) * 1000
        rows.append(
            (
                "revocation: last token after DELETE is sent",
                "p99 ≤ 50 ms on one host",
                f"{p99:.1f} ms of {len(last)}; p50 {statistics.median(last) * 1000:.1f} ms",
            )
        )
    return rows


def _engine_goal() -> Row:
    """What `python -m benchmarks.engine_peers` found last."""
    kept = engine_report.last()
    what = "embedded engine, each request another adapter, 32 at once"
    measured = engine_report.measured(kept) if kept else "not here"
    return (
        what,
        "≥ vLLM on the same CPU; ≥ 3 x peft",
        f"{measured}: `python -m benchmarks.engine_peers`",
    )


def _start_goals(beside: Found) -> list[Row]:
    if not (measured := beside.get("starts")):
        return []
    seconds, weight = (_with_interval(measured[name]) for name in ("seconds", "MiB a worker"))
    goal = "≤ 0.6 s, ≤ 60 MiB a worker"
    return [("core import + serve to ready, without an engine", goal, f"{seconds} s; {weight} MiB")]


def _tables(found: Found) -> list[str]:
    parts = [
        "## Gateways\n\n![Throughput](images/throughput.svg)\n\n![Latency at one connection](images/latency.svg)"
    ]
    for scenario in SCENARIOS.values():
        kinds = {one["name"]: one for one in found["subjects"]}
        measured = {name: counted_rounds(found, scenario, name)[0] for name in kinds}
        rows = [
            _row(found, scenario, kinds[name], rounds)
            for name, rounds in sorted(measured.items(), key=best_first(scenario))
        ]
        unit = "streams/s" if scenario.is_stream else "req/s"
        heads = (
            "subject",
            unit,
            "p50 µs",
            "p99 µs",
            "CPU µs each",
            "MiB",
            f"{scenario.field if scenario.field == 'p50' else unit} x nginx",
            "quiet rounds",
        )
        parts.append(f"### {scenario.what}\n\n{_table(heads, rows)}")
    if "revocations" in found["beside"]:
        parts.append(_deletion_table(found["beside"]["revocations"]))
    return parts


def _row(found: Found, scenario: Scenario, kind: Found, rounds: list[Found | None]) -> Row:
    counted = [one for one in rounds if one and not has_failed(one)]
    name = kind["name"]
    if fewer := kind["fewer"].get(scenario.name):
        name += f" ({fewer} connections)"
    if not counted:
        return (name, _why_nothing(rounds), *[""] * 6)
    figures = [
        statistics.median(one[key] for one in counted)
        for key in ("rate", "p50", "p99", "cpu_us", "memory_mib")
    ]
    link = subjects.NGINX if kind["link"] == "unix" else subjects.NGINX_TCP
    against = _compared(found, scenario, kind["name"], link)
    cpu, memory = (shown(figures[3]), f"{figures[4]:.0f}") if figures[4] else ("", "")
    return (
        name,
        *(f"{figure:,.0f}" if figure else "" for figure in figures[:3]),
        cpu,
        memory,
        str(against or ""),
        quiet(found, scenario, kind["name"]),
    )


def _why_nothing(rounds: list[Found | None]) -> str:
    failures = sum(one["failures"] for one in rounds if one)
    return f"failed: {failures} requests" if failures else "no answer within a sample"


def _deletion_table(measured: dict[str, list[float]]) -> str:
    rows = [
        (
            what,
            *(f"{_percentile(seconds, at) * 1000:.1f}" for at in (50, 90, 99, 100)),
            str(len(seconds)),
        )
        for what, seconds in measured.items()
    ]
    heads = ("milliseconds", "p50", "p90", "p99", "max", "of")
    plot = "![DELETE and revocation](images/deletion.svg)"
    return f"## Deletion, 4 workers\n\n{_table(heads, rows)}\n\n{plot}"


def _peers(found: Found) -> str:
    rows = [(one["name"], one["version"], one["checks"], one["link"]) for one in found["subjects"]]
    rows += [(name, "not here", reason, "") for name, reason in found["missing"].items()]
    heads = ("subject", "version", "checks a request for", "engine by")
    return f"## Subjects\n\n{_table(heads, rows)}"


def _tail(found: Found) -> str:
    fewer = [one["name"] for one in found["subjects"] if one["fewer"]]
    slow = (
        f"{', '.join(fewer)} has fewer connections, as its rows say: with all, most requests outlast a sample. "
        if fewer
        else ""
    )
    return f"""{slow}Portkey's gateway runs with five lines of ours (`benchmarks/peers/portkey.mjs`), without which each of its streams
is a 500 (seen with Node 20 and 22). FastAPI + httpx is ours (`benchmarks/peers/fastapi_httpx.py`).

## Again

```sh
make bench                    # this page: peers go into .cache/bench; ROUNDS=9 for narrower intervals
make bench-guard              # seconds: processor time of a request, beside a bare proxy's; fails at a factor
python -m benchmarks.gateway  # ours and nginx only
python -m benchmarks.revocation
python -m benchmarks.scale
python -m benchmarks.soak --keep          # half an hour; these six write docs/measured, which this page shows
python -m benchmarks.idle_streams --keep
python -m benchmarks.overload --keep
python -m benchmarks.cold_adapters --keep
python -m benchmarks.vllm_plugin --keep   # after make test-vllm
python -m benchmarks.console_pages --keep
python -m benchmarks.engine_peers  # the embedded engine; its figures are kept in docs/engine.json
```"""


def _compared(found: Found, scenario: Scenario, ours: str, theirs: str) -> str:
    """Return the ratio of two subjects, marked if it stands on disturbed samples; "" without one."""
    (mine, is_noisy), (other, is_other_noisy) = (
        counted_rounds(found, scenario, name) for name in (ours, theirs)
    )
    compared: Ratio | None = ratio(
        *([value_of(one, scenario) for one in side] for side in (mine, other))
    )
    if compared is None:
        return ""
    return f"{compared}{NOISY if is_noisy or is_other_noisy else ''}"


def _by_processor(found: Found, scenario: Scenario, ours: str, theirs: str) -> str:
    """Return how many requests a second of processor time serves, ours to theirs; noise matters less."""
    mine, other = (
        [None if one is None or has_failed(one) else one["cpu_us"] for one in rounds]
        for rounds in (
            found["samples"].get(f"{scenario.name}/{name}", []) for name in (ours, theirs)
        )
    )
    compared = None if scenario.field == "p50" else ratio(other, mine)
    return f", by processor time {shown(compared.value)}" if compared else ""


def _with_interval(values: list[float]) -> str:
    low, high = bootstrap(values)
    return f"{shown(statistics.median(values))} ({shown(low)} to {shown(high)})"


def _percentile(values: list[float], at: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * at // 100)]


def _table(heads: Row, rows: Iterable[Row]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _for_plots(found: Found) -> str:
    """Return what plots.py draws: it has no code of ours."""
    names = [one["name"] for one in found["subjects"]]
    bars: dict[str, list[tuple[str, float, float, float]]] = {}
    curves: dict[str, list[float]] = {}
    for scenario in SCENARIOS.values():
        for name in names:
            counted = [
                one
                for one in counted_rounds(found, scenario, name)[0]
                if one and not has_failed(one)
            ]
            if not counted:
                continue
            values = [one["rate"] for one in counted]
            bars.setdefault(scenario.what, []).append(
                (name, statistics.median(values), *bootstrap(values))
            )
            if scenario.name == "json1":
                curves[name] = [
                    statistics.median(at)
                    for at in zip(*(one["quantiles"] for one in counted), strict=True)
                ]
    return json.dumps(
        {
            "bars": bars,
            "curves": curves,
            "times": found["beside"].get("revocations", {}),
            "day": found["day"],
        }
    )
