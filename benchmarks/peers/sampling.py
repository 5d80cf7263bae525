"""One sample: load on one subject for a moment, its processor time, and what disturbed it."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.programs import pinned
from benchmarks.peers.requests import Scenario
from benchmarks.peers.stand_in import LOAD_CPU
from benchmarks.peers.subjects import Subject
from tests.support import servers

HERTZ = os.sysconf("SC_CLK_TCK")
# Processors that others may use in a sample that counts, and before one begins.
DISTURBED = 0.15
QUIET = 0.15
QUIET_POLL_SECONDS = 0.1
QUIET_WAIT_SECONDS = 3.0
AGAIN = 2
LOAD_SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Sample:
    """`disturbance`: how many processors worked on something else meanwhile. Times in microseconds."""

    rate: float
    p50: float
    p99: float
    quantiles: list[float]
    cpu_us: float
    memory_mib: float
    failures: int
    disturbance: float

    @property
    def counts(self) -> bool:
        """Whether others left the processors alone."""
        return self.disturbance < DISTURBED

    @property
    def has_failed(self) -> bool:
        """Whether an answer was not 200, or broke off, or none came."""
        return self.failures > 0 or self.rate == 0


@dataclass(slots=True)
class Sampler:
    """Measures when the machine is quiet, and again what was disturbed, while its patience lasts."""

    load: Path
    seconds: float
    patience_seconds: float

    def sample(self, subject: Subject, scenario: Scenario) -> Sample:
        """Return the quietest of up to three samples."""
        found: list[Sample] = []
        for _ in range(1 + AGAIN):
            self._wait_until_quiet()
            began = time.monotonic()
            found.append(_once(self.load, subject, scenario, self.seconds))
            if found[-1].counts or found[-1].has_failed or self.patience_seconds <= 0:
                break
            self.patience_seconds -= time.monotonic() - began
        return min(found, key=lambda one: one.disturbance)

    def _wait_until_quiet(self) -> None:
        for _ in range(int(QUIET_WAIT_SECONDS / QUIET_POLL_SECONDS)):
            before = _busy()
            time.sleep(QUIET_POLL_SECONDS)
            if (_busy() - before) / QUIET_POLL_SECONDS <= QUIET or self.patience_seconds <= 0:
                return
            self.patience_seconds -= QUIET_POLL_SECONDS


def _once(load: Path, subject: Subject, scenario: Scenario, seconds: float) -> Sample:
    path = load.parent / "request.http"
    path.write_bytes(subject.request(scenario))
    connections = subject.fewer.get(scenario.name, scenario.connections)
    command = [str(load), str(subject.port), str(connections), str(seconds), str(path)]
    everybody = [pid for pid in servers.descendants(os.getpid()) if _name(pid) == "mock"]
    own = _own(subject)
    began, busy, mine = time.monotonic(), _busy(), _spent([*own, *everybody])
    before, children = _spent(own), os.times()
    with pinned(LOAD_CPU):
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=LOAD_SECONDS_MAX
        )
    after, now = _spent(own), os.times()
    took = time.monotonic() - began
    mine = _spent([*own, *everybody]) - mine
    mine += now.children_user + now.children_system - children.children_user
    mine -= children.children_system
    answer = json.loads(done.stdout)
    # The warm-up, a quarter of the time before, is load as well.
    requests = max(1.0, answer["rate"] * seconds * 1.25)
    return Sample(
        rate=answer["rate"],
        p50=answer["p50"],
        p99=answer["p99"],
        quantiles=answer["quantiles"],
        cpu_us=(after - before) * 1e6 / requests,
        memory_mib=_memory(own),
        failures=answer["refused"] + answer["broken"],
        disturbance=max(0.0, (_busy() - busy - mine) / took),
    )


def _own(subject: Subject) -> list[int]:
    """Its processes, without the stand-in for its engine."""
    if subject.process is None:
        return []
    family = [subject.process, *servers.descendants(subject.process)]
    return [pid for pid in family if _name(pid) != "mock"]


def _busy() -> float:
    """Seconds that the processors worked, for whomever; what another guest took counts."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / HERTZ


def _spent(pids: Iterable[int]) -> float:
    """Seconds that the processes worked."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _memory(pids: Iterable[int]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
