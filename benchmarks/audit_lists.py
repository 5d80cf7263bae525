"""Lists of audit events at a million of them, by each filter: `python -m benchmarks.audit_lists [EVENTS]`.

All events are of one organization, which is the worst case; each list is read 200 times with values drawn at random.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from tunewarden.audit import EventType, listing
from tunewarden.audit.listing import Filters
from tunewarden.clock import SystemClock
from tunewarden.db.sqlite import SqliteDatabase

EVENTS = 1_000_000
READS = 200
SECOND = 1_000_000
BEGIN = 1_750_000_000 * SECOND
TYPES = [one.value for one in EventType]
RARE = "project.archived"
KEYS, USERS, PROJECTS = 400, 200, 20


def fill(path: Path, events: int) -> None:
    """Write events as a year of an organization has them: a few types, keys and projects have most."""
    numbers = random.Random(1)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA synchronous=OFF")

    def skewed(count: int) -> int:
        return int(count * numbers.random() ** 3)

    def rows() -> object:
        for n in range(events):
            kind = TYPES[skewed(len(TYPES))] if n % 100_000 else RARE
            key = skewed(KEYS)
            yield (
                f"audit_log_{n:024}", kind, BEGIN + n * 31 * SECOND, "org", f"proj_{skewed(PROJECTS)}",
                f"key_{key}", f"user_{key * USERS // KEYS}", f"file-{n // 3:024}", f"req_{n:024}", "{}",
            )  # fmt: skip

    with connection:
        connection.executemany(
            "INSERT INTO audit_events (id, type, effective_at, organization_id, project_id, actor_key_id,"
            " actor_user_id, resource_id, request_id, details) VALUES (?,?,?,?,?,?,?,?,?,?)",
            rows(),  # type: ignore[arg-type]  # tuples
        )
    connection.close()


def cases(events: int, numbers: random.Random) -> dict[str, Callable[[], Filters]]:
    """Return the filters to measure, by name."""

    def one(values: list[str]) -> frozenset[str]:
        return frozenset({numbers.choice(values)})

    keys = [f"key_{n}" for n in range(KEYS)]
    projects = [f"proj_{n}" for n in range(PROJECTS)]

    def window(**others: frozenset[str]) -> Filters:
        at = BEGIN + numbers.randrange(events) * 31 * SECOND
        return Filters(from_at=at, to_at=at + 3600 * SECOND, **others)  # type: ignore[arg-type]  # sets

    return {
        "all": Filters,
        "one type": lambda: Filters(types=one(TYPES)),
        "a rare type": lambda: Filters(types=frozenset({RARE})),
        "ten types": lambda: Filters(types=frozenset(numbers.sample(TYPES, 10))),
        "one resource": lambda: Filters(
            resource_ids=one([f"file-{numbers.randrange(events // 3):024}"])
        ),
        "one key": lambda: Filters(actor_ids=one(keys)),
        "100 actors": lambda: Filters(actor_ids=frozenset(numbers.sample(keys, 100))),
        "one person by address": lambda: Filters(
            user_ids=frozenset({f"user_{numbers.randrange(USERS)}"})
        ),
        "one project": lambda: Filters(project_ids=one(projects)),
        "an hour": window,
        "an hour and a type": lambda: window(types=one(TYPES)),
        "type and project": lambda: Filters(types=one(TYPES), project_ids=one(projects)),
        "type, project and key": lambda: Filters(
            types=one(TYPES), project_ids=one(projects), actor_ids=one(keys)
        ),
    }


def main() -> None:
    """Print the times of each list, in milliseconds."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    numbers = random.Random(2)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "audit.sqlite"
        database = SqliteDatabase(path, SystemClock(), migrate=True)
        fill(path, events)
        size = path.stat().st_size + path.with_name(f"{path.name}-wal").stat().st_size
        print(f"{events} events, {size / events:.0f} bytes each")
        ids = [f"audit_log_{n:024}" for n in range(events)]
        for title, filters in cases(events, numbers).items():
            for how, pages in (("first page", False), ("page inside", True)):
                took = []
                for _ in range(READS):
                    after = numbers.choice(ids) if pages else None
                    began = time.perf_counter()
                    listing.page(database, "org", filters(), after=after, before=None, limit=21)
                    took.append((time.perf_counter() - began) * 1000)
                took.sort()
                print(
                    f"{title:24} {how:12} p50 {took[READS // 2]:7.2f}  p95 {took[READS * 95 // 100]:7.2f}"
                    f"  max {took[-1]:7.2f} ms"
                )


if __name__ == "__main__":
    main()
