"""Usage of the organization: requests and tokens by day, and by what they are grouped."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from starlette.responses import Response

from tunewarden.console import charts, lists, rendering, tables
from tunewarden.console.administration import administered, shown_key
from tunewarden.console.charts import Chart, Series
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.tables import Table
from tunewarden.identity.admin_keys import Administrator
from tunewarden.registry import usage_reports
from tunewarden.registry.usage import COMPLETIONS, DAY, HOUR, Counts
from tunewarden.registry.usage_reports import Group, Query

# What a page shows: the width of its buckets, and how many there are.
SPANS = {"24 hours": (HOUR, 24), "7 days": (DAY, 7), "30 days": (DAY, 30), "90 days": (DAY, 90)}
USUAL_SPAN = "7 days"
GROUPS = {
    "model": "model",
    "project": "project_id",
    "API key": "api_key_id",
    "user": "user_id",
}
ROWS_MAX = 100


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a span, by what: the groups of each bucket, and the sums of each group, the largest first."""

    span: str
    by: str
    buckets: dict[int, list[Group]]
    rows: list[tuple[str, Counts]]


def _find(visit: Visit, administrator: Administrator) -> Found:
    asked = visit.asked
    span = asked.asked_for("span") if asked.asked_for("span") in SPANS else USUAL_SPAN
    by = asked.asked_for("by") if asked.asked_for("by") in GROUPS else "model"
    seconds, count = SPANS[span]
    now = int(visit.operations.clock.now().timestamp())
    query = Query(
        kind=COMPLETIONS,
        seconds=seconds,
        begin=now - now % seconds - (count - 1) * seconds,
        end=None,
        limit=count,
        grouped_by=frozenset({GROUPS[by]}),
        only={},
    )
    buckets = _buckets(visit, administrator, query)
    groups: dict[str, Counts] = defaultdict(Counts)
    for found in buckets.values():
        for group in found:
            groups[getattr(group, GROUPS[by]) or "not recorded"].add(group.counts)
    rows = sorted(groups.items(), key=lambda one: (-one[1].requests, one[0]))
    return Found(span, by, buckets, rows)


def _read(visit: Visit, _: str | None, limit: int) -> tuple[Sequence[tuple[str, Counts]], None]:
    return _find(visit, shown_key(visit)).rows[: max(limit, tables.ROWS_MAX)], None


USAGE = Table[tuple[str, Counts]](
    "usage",
    _read,
    {
        "name": lambda one: one[0],
        "requests": lambda one: one[1].requests,
        "input_tokens": lambda one: one[1].input_tokens,
        "cached_tokens": lambda one: one[1].cached_tokens,
        "output_tokens": lambda one: one[1].output_tokens,
    },
)


@administered
@tables.also_as(USAGE)
def show_usage(visit: Visit, administrator: Administrator) -> Response:
    """Return the usage of the last days, as charts and by group."""
    found = _find(visit, administrator)
    values = {
        "spans": list(SPANS),
        "span": found.span,
        "groups": list(GROUPS),
        "by": found.by,
        "charts": _charts(found.buckets, SPANS[found.span][0]),
        "rows": found.rows[:ROWS_MAX],
        "more": max(0, len(found.rows) - ROWS_MAX),
        **lists.paged(visit, None),
    }
    return rendering.page(visit, "usage.html", values)


def _buckets(visit: Visit, administrator: Administrator, query: Query) -> dict[int, list[Group]]:
    """Return the groups of each bucket: a report comes in pages, each of bounded work."""
    found: dict[int, list[Group]] = {}
    following: int | None = query.begin
    while following is not None and len(found) < query.limit:
        rest = replace(query, begin=following, limit=query.limit - len(found))
        page = usage_reports.report(visit.operations.database, administrator, rest)
        found |= page.buckets
        following = page.next_begin
    return found


def _charts(buckets: dict[int, list[Group]], seconds: int) -> list[charts.Drawn]:
    requests: Counter[int] = Counter()
    taken: Counter[int] = Counter()
    given: Counter[int] = Counter()
    for at, groups in buckets.items():
        for group in groups:
            requests[at] += group.counts.requests
            taken[at] += group.counts.input_tokens
            given[at] += group.counts.output_tokens

    def series(name: str, counted: Counter[int]) -> Series:
        return Series(name, [(float(at), float(counted[at])) for at in sorted(buckets)])

    def label(at: float) -> str:
        return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M" if seconds < DAY else "%m-%d")

    name = "hour (UTC)" if seconds < DAY else "day (UTC)"
    return [
        charts.bars(
            Chart(
                "requests", "Requests", name, [series("requests", requests)],
                y_from_zero=True, x_label=label,
            )
        ),
        charts.bars(
            Chart(
                "tokens", "Tokens", name, [series("input", taken), series("output", given)],
                y_from_zero=True, x_label=label,
            )
        ),
    ]  # fmt: skip


PAGES = (Page("GET", "/console/usage", show_usage),)
