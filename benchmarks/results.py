"""Where a benchmark keeps what it found, so that docs/performance.md can show it: docs/measured/NAME.json."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "docs" / "measured"
# Benchmark -> the title of its part, and what it shows.
PAGE_PARTS = {
    "flames": (
        "Where the time goes",
        (
            "A worker's event loop under full load; open a picture by itself to read the names of narrow frames. Writing to sockets and "
            "waiting for them is the kernel's work, which any gateway has; all else is ours."
        ),
    ),
    "soak": (
        "Soak",
        (
            "At 70 % of what the whole chain can do (load generator and the engine's stand-in share the processors) models "
            "are imported and deleted, keys made and revoked, clients leave in mid-stream or read slowly. Every answer is "
            "checked: it names the model's adapter and repeats its question. First and last are medians of a sixth of the "
            "time each; the goal is 0 wrong answers, memory within 5 %, and no more descriptors."
        ),
    ),
    "idle_streams": (
        "10,000 idle streams",
        (
            "Silent SSE streams on one worker, each with its connection to the engine; then one DELETE of their model. The "
            "goal is 400 MB."
        ),
    ),
    "overload": (
        "Overload",
        (
            "Load as it comes, with default limits, one model of eight with half of it. Latency counts from when a request "
            "was due. The goal: only 200, 429 and 503 with `retry-after`, at least 70 % of capacity served, and all as "
            "before two seconds after. How soon that is follows from the limit: `requests_per_engine_max` (1,024) divided by "
            "what the engine has to spare. A slower engine needs a lower limit to recover as soon."
        ),
    ),
    "cold_adapters": (
        "Cold adapters",
        (
            "From the request to the first token of a model that no engine has: its sealed files, dropped from the page cache, "
            "are read, decrypted, handed over and loaded. So many models are registered on the demo's base, and their servers "
            "take turns; *warm* is the same request again, at once. The goal: among 100,000 at most 1.25 x the median "
            "among 10."
        ),
    ),
    "console_pages": (
        "Console",
        (
            "Every kind of page at 100,000 models and 10,000 API keys that were used today, one after the other in many "
            "turns, by a session from one client; *much*, *5* and *none* are how many models a filter finds. Time is the "
            "client's, which includes the connection; processor time is the worker's, which other people's load hardly "
            "changes. Memory is resident, shared pages included. The goals: p95 at most 50 ms, and at most 60 MiB for a "
            "worker whose console is not used."
        ),
    ),
    "engine_formats": (
        "Rows with a schema, and plain chat beside the tree before",
        (
            "The embedded engine on the demo's base. Rows without a schema beside as many with one; and plain chats of one "
            "choice on this tree and on the last one before tools and structured outputs, in turns. The goals: at least "
            "0.95 of their speed, and within 3 %."
        ),
    ),
    "vllm_plugin": (
        "vLLM with the plugin",
        (
            "Beside stock vLLM, eight streams on one adapter of the demo's base, in turns of both. The goal: at least 0.98 x its "
            "tokens a second."
        ),
    ),
}


def keep(
    name: str, command: str, rows: list[tuple[str, ...]], *, failures: list[str], note: str = ""
) -> None:
    """Write a benchmark's table; its first row is the head."""
    MEASURED.mkdir(parents=True, exist_ok=True)
    found = {
        "day": datetime.now(UTC).date().isoformat(),
        "command": command,
        "commit": _revision(),
        "machine": f"{len(os.sched_getaffinity(0))} processors, Linux {platform.release()}",
        "rows": rows,
        "failures": failures,
        "note": note,
    }
    (MEASURED / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def kept(name: str) -> dict[str, Any] | None:
    """Return what was written last; None without."""
    path = MEASURED / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def section(name: str, title: str, what: str) -> list[str]:
    """Return a part of docs/performance.md with what was kept last; none without."""
    found = kept(name)
    if found is None:
        return []
    head, *rows = found["rows"]
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    how = f"`{found['command']}` on {found['day']}, commit {found['commit']}, {found['machine']}."
    result = f"Not met: {'; '.join(found['failures'])}." if found["failures"] else "All met."
    text = " ".join(filter(None, [what, found["note"], result]))
    return [f"## {title}\n\n{text}\n\n{how}\n\n{table}"]


def sections() -> list[str]:
    """Return the parts of docs/performance.md that are measured by programs of their own."""
    return [part for name, said in PAGE_PARTS.items() for part in section(name, *said)]


def load() -> str:
    """Say whether the machine was busy with other work: the mean number of processes that run, of the last 15 minutes."""
    return f"The load average was {os.getloadavg()[2]:.1f} on {len(os.sched_getaffinity(0))} processors."


def show(rows: list[tuple[str, ...]]) -> None:
    """Print a table."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip(), flush=True)


def percentile(values: list[float], at: float) -> float:
    """Return the value below which so many percent are; NaN of none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * at / 100))]


def _revision() -> str:
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip()
