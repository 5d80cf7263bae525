"""`tunewarden usage`: requests and tokens by model, key, project or user."""

import csv
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.client import Client, Object
from tunewarden.cli.options import administering_option, json_option, refusing
from tunewarden.cli.output import show_json, show_table, shown_time
from tunewarden.clock import SystemClock

# The option's values, and the fields of the API.
GROUPS = {"model": "model", "key": "api_key_id", "project": "project_id", "user": "user_id"}
KINDS = ("completions", "embeddings")
COUNTS = ("num_model_requests", "input_tokens", "input_cached_tokens", "output_tokens")
HEADINGS = ("requests", "input_tokens", "cached_tokens", "output_tokens")
SPAN = re.compile(r"([1-9][0-9]{0,4})([hd])")
HOUR, DAY = 3600, 86_400
# Hours are added up for this long, days for what is longer. The server keeps hours for 90 days.
HOURLY_SECONDS = 30 * DAY
PAGES = {"1h": 168, "1d": 31}
BUCKETS = {"hour": "1h", "day": "1d"}


class _Time(click.ParamType[int]):
    """A time: some hours or days ago, or a day (UTC)."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return Unix seconds."""
        text = str(value)
        now = int(SystemClock().now().timestamp())
        if span := SPAN.fullmatch(text):
            return max(0, now - int(span[1]) * (HOUR if span[2] == "h" else DAY))
        try:
            day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            self.fail(f"{text!r} is no time. Examples: 24h, 7d, 2027-01-31.", param, ctx)
        return max(0, int(day.timestamp()))


@click.command(
    epilog="\b\nExamples:\n  tunewarden usage --by key --since 24h\n  tunewarden usage --since 2027-01-01 --csv\n  tunewarden usage --since 30d --bucket day"
)
@click.option(
    "--by",
    type=click.Choice([*GROUPS]),
    default="model",
    show_default=True,
    help="What to add up by.",
)
@click.option("--since", type=_Time(), default="7d", show_default=True, help="24h, 7d, 2027-01-31.")
@click.option(
    "--until", type=_Time(), help="The same, the end, which is not part of it. [default: now]"
)
@click.option(
    "--bucket",
    type=click.Choice([*BUCKETS]),
    help="Show each hour or each day (UTC) that has usage. [default: all of the time together]",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values with headings.")
@json_option
@administering_option
@refusing
def usage(
    by: str,
    since: int,
    until: int | None,
    bucket: str | None,
    data: Path | None,
    *,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show requests and tokens, the most requests first; with --bucket each hour or day, the oldest first.

    Chats and responses count as completions. Times are full hours, or full days (UTC) if it is more than 30 days.
    """
    if as_csv and as_json:
        raise click.UsageError("Use --csv or --json, not both.")
    end = int(SystemClock().now().timestamp()) if until is None else until
    if end <= since:
        raise click.UsageError("--until must be after --since.")
    width = "1h" if end - since <= HOURLY_SECONDS else "1d"
    if bucket is not None:
        width = BUCKETS[bucket]
    with client.administering(data) as server:
        found = [
            _Usage(start, value, kind, counts)
            for kind in KINDS
            for (start, value), counts in _sums(
                server, kind, GROUPS[by], (since, until), width, is_split=bucket is not None
            ).items()
        ]
    found.sort(key=_Usage.place)
    headings: tuple[str, ...] = (by, "kind", *HEADINGS)
    rows: list[tuple[str | int, ...]] = [(one.group, one.kind, *one.counts) for one in found]
    if bucket is not None:
        headings = ("start", *headings)
        starts = [one.start if as_json else shown_time(one.start) for one in found]
        rows = [(start, *row) for start, row in zip(starts, rows, strict=True)]
    if as_json:
        show_json(
            {
                "since": since,
                "until": end,
                "data": [dict(zip(headings, row, strict=True)) for row in rows],
            }
        )
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([headings, *rows])
    else:
        show_table(headings, rows)


@dataclass(frozen=True, slots=True)
class _Usage:
    """Counts of a group; `start` is that of its bucket, 0 if all of the time is one."""

    start: int
    group: str
    kind: str
    counts: tuple[int, ...]

    def place(self) -> tuple[int, int, str, str]:
        """Return what puts it in its place: the oldest bucket first, in it the most requests."""
        return self.start, -self.counts[0], self.group, self.kind


def _sums(
    server: Client,
    kind: str,
    field: str,
    times: tuple[int, int | None],
    width: str,
    *,
    is_split: bool,
) -> dict[tuple[int, str], tuple[int, ...]]:
    """Return the counts by bucket's start and group; usage whose key or user was not recorded has the group "-".

    The start is 0 of all unless `is_split`.
    """
    found: dict[tuple[int, str], tuple[int, ...]] = {}
    page: str | None = None
    has_more = True
    while has_more:
        report: Object = server.get(
            "organization",
            "usage",
            kind,
            start_time=times[0],
            end_time=times[1],
            bucket_width=width,
            limit=PAGES[width],
            page=page,
            **{"group_by[]": field},
        )
        results = ((bucket, one) for bucket in report["data"] for one in bucket["results"])
        for bucket, result in results:
            group = bucket["start_time"] if is_split else 0, result[field] or "-"
            before = found.get(group, (0,) * len(COUNTS))
            counts = (result.get(name, 0) for name in COUNTS)
            found[group] = tuple(a + b for a, b in zip(before, counts, strict=True))
        page, has_more = report["next_page"], report["has_more"]
    return found
