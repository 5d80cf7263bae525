"""Usage of the organization: requests and tokens by day, and by what they are grouped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from tunewarden.registry.usage_reports import Query, Summary

# What a page shows: the width of its buckets, and how many there are.
SPANS = {"24 hours": (HOUR, 24), "7 days": (DAY, 7), "30 days": (DAY, 30), "90 days": (DAY, 90)}
USUAL_SPAN = "7 days"
GROUPS = {
    "model": "model",
    "project": "project_id",
    "API key": "api_key_id",
    "user": "user_id",
}
ROWS_MAX = 50


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a span that begins at `begin`, by what: its sums, and the groups, the largest first."""

    span: str
    by: str
    begin: int
    summary: Summary

    @property
    def rows(self) -> list[tuple[str, Counts]]:
        """The groups with their names."""
        return [(name or "not recorded", counts) for name, counts in self.summary.groups]


def _find(visit: Visit, administrator: Administrator, groups: int) -> Found:
    asked = visit.asked
    span = asked.asked_choice("span", SPANS) or USUAL_SPAN
    by = asked.asked_choice("by", GROUPS) or "model"
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
    database = visit.operations.database
    found = usage_reports.summary(database, administrator, query, groups=groups)
    return Found(span, by, query.begin, found)


def _read(visit: Visit, _: str | None, limit: int) -> tuple[Sequence[tuple[str, Counts]], None]:
    return _find(visit, shown_key(visit), max(limit, tables.ROWS_MAX)).rows, None


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
    found = _find(visit, administrator, ROWS_MAX)
    since = min(found.summary.buckets)
    values = {
        "spans": list(SPANS),
        "span": found.span,
        "groups": list(GROUPS),
        "by": found.by,
        "charts": _charts(found.summary.buckets, SPANS[found.span][0]),
        "rows": found.rows,
        "more": found.summary.more,
        "since": since if since > found.begin else None,
        **lists.paged(visit, None),
    }
    return rendering.page(visit, "usage.html", values)


def _charts(buckets: dict[int, Counts], seconds: int) -> list[charts.Drawn]:
    def series(name: str, counted: Callable[[Counts], int]) -> Series:
        return Series(name, [(float(at), float(counted(buckets[at]))) for at in sorted(buckets)])

    def label(at: float) -> str:
        return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M" if seconds < DAY else "%m-%d")

    name = "hour (UTC)" if seconds < DAY else "day (UTC)"
    requests = [series("requests", lambda one: one.requests)]
    tokens = [
        series("input", lambda one: one.input_tokens),
        series("output", lambda one: one.output_tokens),
    ]
    return [
        charts.bars(Chart(title.lower(), title, name, some, y_from_zero=True, x_label=label))
        for title, some in (("Requests", requests), ("Tokens", tokens))
    ]


PAGES = (Page("GET", "/console/usage", show_usage),)
