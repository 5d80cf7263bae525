"""How long pages of the console take at 100,000 models and 10,000 API keys, and what it costs a worker's memory.

`python -m benchmarks.console_pages [--models N] [--keys N] [--rounds N] [--keep]`: every page in turns, by a session,
from one client, with filters that nothing, little and much meets. A page's processor time is the worker's, which other
people's load hardly changes; its time is the client's, connecting included. The worker's memory is read before the
first page and after the last.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import console_rows, many_models, results
from benchmarks.console_rows import HALF, NEVER, NEW_BASE, RARE, RARE_BASE
from tests.api.test_authorization import FILE
from tests.support import administration, fine_tuning_rows, servers, uploading, webhook_rows
from tests.support.console import Visitor
from tests.support.servers import LOCAL_BASE, Server, WithoutTorch

from tunewarden.finetuning.states import State

KIB_OF_MIB = 1024
SAMPLE = 40
MANY = 25  # of what a list has more than a page of
P95_MAX = 50.0
UNUSED_MIB_MAX = 60.0


@dataclass
class Page:
    """A page with what was measured of it, in milliseconds."""

    name: str
    path: str
    took: list[float] = field(default_factory=list)
    worked: list[float] = field(default_factory=list)

    @property
    def row(self) -> tuple[str, ...]:
        """Its row of the table."""
        took, worked = self.took[1:], self.worked[1:]
        figures = (
            *(results.percentile(took, at) for at in (50, 95)),
            *(results.percentile(worked, at) for at in (50, 95)),
        )
        return (self.name, *(f"{one:.1f}" for one in figures))


def main() -> None:
    """Measure, and print a line for each page."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--models", type=int, default=100_000)
    asked.add_argument("--keys", type=int, default=10_000)
    asked.add_argument("--rounds", type=int, default=100)
    asked.add_argument("--keep", action="store_true", help="write docs/measured")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        servers.prepare_local_base(data)
        app = servers.open_data(data)
        real = many_models.fill(app, LOCAL_BASE, given.models, SAMPLE)
        console_rows.vary_models(data)
        console_rows.add_keys(data, given.keys)
        with servers.serving(data, workers=1, kind=WithoutTorch) as server:
            before = _memory(server)
            visitor = Visitor(server, server.owner_key)
            visitor.administer(administration.make_admin_key(server.app))
            pages = _pages(server, real)
            for _ in range(given.rounds + 1):
                for page in pages:
                    _measure(visitor, page)
            after = _memory(server)
    _report(given, pages, before, after)


def _pages(server: Server, real: list[str]) -> list[Page]:
    """Return every kind of page, on something that is there."""
    there = _made(server, real)
    model, listed = real[1], "/console/models?"
    both = f"name={HALF}&base={LOCAL_BASE}&state=active"
    paths = {
        "first page": "/console",
        "models": "/console/models",
        "models, a page inside": f"{listed}after={model}",
        "models by name: much": f"{listed}name={HALF}",
        "models by name: 5": f"{listed}name={RARE}",
        "models by name: none": f"{listed}name={NEVER}",
        "models by base: much": f"{listed}base={LOCAL_BASE}",
        "models by base: 5": f"{listed}base={RARE_BASE}",
        "models by base: none": f"{listed}base={NEW_BASE}",
        "models by state: much": f"{listed}state=active",
        "models by state: 5": f"{listed}state=archived",
        "models by all three: much": f"{listed}{both}",
        "models by all three: much, a page inside": f"{listed}{both}&after={model}",
        "models by two that never meet": f"{listed}name={HALF}&base={RARE_BASE}",
        "a model": f"/console/models/{model}",
        "a model's deletion": f"/console/models/{model}/delete",
        "the deletion of three": "/console/delete?" + "&".join(f"id={one}" for one in real[2:5]),
        "deletions": "/console/deletions",
        "a deletion": f"/console/deletions/{there['deletion']}",
        "cases": "/console/cases",
        "a case": f"/console/cases/{there['case']}",
        "files": "/console/files",
        "files by purpose: none": "/console/files?purpose=evals",
        "a file": f"/console/files/{there['file']}",
        "a file's deletion": f"/console/files/{there['file']}/delete",
        "jobs": "/console/jobs",
        f"a job with {console_rows.METRICS:,} metrics": f"/console/jobs/{there['job']}",
        "log": "/console/log",
        "usage": "/console/usage",
        "usage by API key, 90 days": "/console/usage?by=API+key&span=90+days",
        "people": "/console/people",
        "projects": "/console/projects",
        "a project with its keys": f"/console/projects/{there['project']}",
        "audit": "/console/audit",
        "audit by type: none": "/console/audit?type=project.archived",
        "audit by actor": f"/console/audit?actor={there['user']}",
        "retention": "/console/retention",
        "a retention rule": f"/console/retention/{there['rule']}",
        "webhooks": "/console/webhooks",
        "a webhook": f"/console/webhooks/{there['webhook']}",
        "system": "/console/system",
    }
    return [Page(name, path) for name, path in paths.items()]


def _made(server: Server, real: list[str]) -> dict[str, str]:
    """Make what the pages need; return the ids."""
    app, key = server.app, server.owner_key
    deleted = server.request("DELETE", f"/v1/models/{real[0]}", key=key)
    files = [uploading.post(server, "/v1/files", *FILE).json["id"] for _ in range(MANY)]
    erased = server.request("DELETE", f"/v1/files/{files[0]}?cascade=models", key=key)
    for _ in range(MANY):
        fine_tuning_rows.make_job(app, key, state=State.SUCCEEDED)
    rule: Any = server.post("/v1/retention/rules", {"action": "archive", "older_than_days": 9}).json
    caller = fine_tuning_rows.caller_of(app, key)
    return {
        "deletion": str(deleted.header("tunewarden-deletion")),
        "case": str(erased.header("tunewarden-deletion-case")),
        "file": str(files[1]),
        "job": console_rows.make_measured_job(app, key),
        "project": caller.project_id,
        "user": str(caller.user_id),
        "rule": str(rule["id"]),
        "webhook": webhook_rows.make_endpoint(app, key),
    }


def _measure(visitor: Visitor, page: Page) -> None:
    """Get the page once. The very first time loads what it needs, and counts in no figure."""
    worker = _worker(visitor.server)
    worked, began = _processor_ms(worker), time.perf_counter()
    reply = visitor.get(page.path)
    page.took.append((time.perf_counter() - began) * 1000)
    page.worked.append(_processor_ms(worker) - worked)
    assert reply.status == 200, (page.path, reply.status, reply.body)


def _report(given: argparse.Namespace, pages: list[Page], before: float, after: float) -> None:
    head = ("page", "p50 ms", "p95 ms", "processor p50 ms", "processor p95 ms")
    rows: list[tuple[str, ...]] = [head, *(page.row for page in pages)]
    rows.append(("worker before its first page, MiB", f"{before:.1f}", "", "", ""))
    rows.append(("worker after all of them, MiB", f"{after:.1f}", "", "", ""))
    results.show(rows)
    slow = [row[0] for row in rows[1:-2] if float(row[2]) > P95_MAX]
    failures = [f"p95 of {one} is above {P95_MAX:.0f} ms" for one in slow]
    if before > UNUSED_MIB_MAX:
        failures.append(
            f"a worker whose console is not used has more than {UNUSED_MIB_MAX:.0f} MiB"
        )
    print(f"{results.load()} {'; '.join(failures) or 'All met.'}")
    if given.keep:
        numbers = f"--models {given.models} --keys {given.keys} --rounds {given.rounds}"
        command = f"python -m benchmarks.console_pages {numbers} --keep"
        results.keep("console_pages", command, rows, failures=failures, note=results.load())


def _worker(server: Server) -> int:
    (worker,) = server.running("tunewarden.server.worker")
    return worker


def _processor_ms(pid: int) -> float:
    """Return how long the threads of a process have run."""
    ran = 0
    for one in Path(f"/proc/{pid}/task").iterdir():
        ran += int((one / "schedstat").read_text("ascii").split()[0])
    return ran / 1e6


def _memory(server: Server) -> float:
    """Return the resident memory of the worker in MiB, shared pages included: what people see from outside."""
    text = Path(f"/proc/{_worker(server)}/smaps_rollup").read_text("ascii")
    found = dict(line.split()[:2] for line in text.splitlines()[1:])
    return int(found["Rss:"]) / KIB_OF_MIB


if __name__ == "__main__":
    main()
