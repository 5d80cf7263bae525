"""`python -m tests.chaos.torture`: the long forms of all stresses, with what they saw in docs/evidence.md.

Each battery is a part of the test suite, run with TUNEWARDEN_TORTURE=1. What its tests print stands in
the table: seeds, counts, and the controls that fired. Rows of batteries that are not run stay.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parents[2]
EVIDENCE = REPOSITORY / "docs" / "evidence.md"
BATTERIES = {
    "begun-after-ack": "tests/chaos/test_begun_after_ack.py",
    "streams-are-cut": "tests/chaos/test_streams_are_cut.py",
    "frozen-processes": "tests/chaos/test_frozen_processes.py",
    "lost-access": "tests/chaos/test_lost_access.py",
    "writes-against-lost-access": "tests/chaos/test_writes_against_lost_access.py",
    "limits": "tests/chaos/test_limits.py",
    "three-organizations": "tests/chaos/test_three_organizations.py",
    "kill-nine": "tests/chaos/test_kill_nine.py",
    "usage-after-kills": "tests/chaos/test_usage_after_kills.py",
    "audit-after-kills": "tests/chaos/test_audit_after_kills.py",
    "http-framing": "tests/chaos/test_http_framing.py",
    "retransmission": "tests/chaos/test_retransmission.py",
    "full-disk": "tests/chaos/test_full_disk.py",
    "swap-file": "tests/chaos/test_swap_file.py",
    "hostile-clients": "tests/api/test_hostile_clients.py",
    "killed-jobs": "tests/chaos/test_killed_jobs.py",
    "killed-migrations": "tests/chaos/test_killed_migrations.py",
    "killed-retraining": "tests/chaos/test_killed_retraining.py",
    "receipts-of-engines": "tests/api/test_receipts_of_engines.py",
    "upgrade-from-0.1": "tests/api/test_upgrade_from_0_1.py",
    **{
        path.stem.removeprefix("test_").replace("_", "-"): str(path.relative_to(REPOSITORY))
        for path in sorted((REPOSITORY / "tests" / "properties").glob("test_*.py"))
    },
}
# Tests of the tests: each runs something that is wrong on purpose and fails unless that was seen.
CONTROL = re.compile(r"catch|control|mutant|wrong")
BANNER = re.compile(r"^-+ Captured Out -+$", re.MULTILINE)
TITLES = ("battery", "test", "seeds", "counts", "violations", "seconds", "machine", "day")


@dataclass(frozen=True, slots=True)
class Row:
    """One test of one battery."""

    battery: str
    test: str
    printed: str
    result: str
    seconds: float

    def cells(self, machine: str) -> list[str]:
        seeds = ", ".join(re.findall(r"\bseed (\d+)", self.printed)) or "-"
        counts = re.sub(r"\bseed \d+ ?", "", " ".join(self.printed.split())) or "-"
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        return [
            self.battery,
            self.test.replace("_", " "),
            seeds,
            counts.replace("|", "/"),
            self.result,
            f"{self.seconds:.0f}",
            machine,
            day,
        ]


def main() -> None:
    """Run what is asked for, write the table, and fail if anything failed or was not reached."""
    parser = argparse.ArgumentParser()
    parser.add_argument("battery", nargs="*", choices=[*BATTERIES], help="all by default")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="start and run for so long")
    parser.add_argument("--out", type=Path, default=EVIDENCE)
    asked = parser.parse_args()
    until = time.monotonic() + asked.minutes * 60
    rows: list[Row] = []
    for battery in asked.battery or BATTERIES:
        left = until - time.monotonic()
        ran = _run(battery, left) if left > 0 else [_not_run(battery, "no time was left")]
        for row in ran:
            print(f"{row.battery}: {row.test}: {row.result}: {row.printed}", flush=True)
        rows += ran
    write(asked.out, rows)
    sys.exit(any(row.result not in {"0", "the control fired"} for row in rows))


def _run(battery: str, seconds: float) -> list[Row]:
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "pytest", "-q", BATTERIES[battery]]
        command += [f"--junitxml={report.name}", "-o", "junit_logging=system-out"]
        try:
            subprocess.run(
                command,
                env={**os.environ, "TUNEWARDEN_TORTURE": "1"},
                cwd=REPOSITORY,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [_not_run(battery, "not finished in time")]
        cases = ElementTree.parse(report.name).iter("testcase")
        rows = [_row(battery, case) for case in cases]
    return rows or [_not_run(battery, "no tests")]


def _row(battery: str, case: ElementTree.Element) -> Row:
    name = case.get("name", "").removeprefix("test_")
    printed = BANNER.sub("", case.findtext("system-out") or "").strip()
    if case.find("failure") is not None or case.find("error") is not None:
        result = "FAILED"
    elif case.find("skipped") is not None:
        result = "skipped"
    else:
        result = "the control fired" if CONTROL.search(name) else "0"
    return Row(battery, name, printed, result, float(case.get("time", "0")))


def _not_run(battery: str, why: str) -> Row:
    return Row(battery, "all", "", f"NOT RUN: {why}", 0)


def write(path: Path, rows: list[Row]) -> None:
    machine = _machine()
    ran = {row.battery for row in rows}
    table = [row.cells(machine) for row in rows] + [
        cells for cells in _written(path) if cells[0] not in ran
    ]
    order = list(BATTERIES)
    table.sort(key=lambda cells: order.index(cells[0]) if cells[0] in order else len(order))
    lines = [
        "# Evidence",
        "",
        "Written by `python -m tests.chaos.torture` (all batteries, or those named; `--minutes N`",
        "bounds it). A row is a test; it fails on any violation, so that the column says 0. A zero",
        "counts only beside a control that fires: a row whose test is wrong on purpose, and was caught.",
        "Rows that name a command of their own were written down from what it printed.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in [list(TITLES), ["---"] * len(TITLES), *table]),
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _written(path: Path) -> list[list[str]]:
    """The rows that an earlier run wrote."""
    if not path.exists():
        return []
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def _machine() -> str:
    """Processors and memory, as /proc names them."""
    name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    gib = int(memory[1]) / 2**20 if memory else 0
    processor = name[1].strip() if name else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{cores} x {processor}, {gib:.0f} GiB, Linux {platform.release()}"


if __name__ == "__main__":
    main()
