"""Reports of an organization's usage, in buckets of a minute, an hour or a day (UTC), for its administrators.

A report is read page by page. The work for a page is bounded: it ends early, before the bucket that would be too much.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tunewarden.clock import from_micros
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys
from tunewarden.identity.admin_keys import Administrator
from tunewarden.registry.usage import DAY, HOUR, MINUTE, SECOND, Counts, KindOfRequest

# Rows that are read and groups that are returned for one page, unless one bucket alone has more rows.
ROWS_MAX = 100_000
GROUPS_MAX = 5_000
# Rows that are read for a summary, unless one bucket alone has more: what two sums of them take 30 ms.
SUMMED_MAX = 15_000
# How far back a report of minutes and of hours may begin, in seconds; rows are kept a little longer. Days: any time.
REACH: Final[Mapping[int, int]] = {MINUTE: DAY, HOUR: 89 * DAY}
NAMES: Final[Mapping[int, str]] = {MINUTE: "1m", HOUR: "1h", DAY: "1d"}
COLUMNS: Final[Mapping[str, str]] = {
    "project_id": "s.project_id",
    "user_id": "s.user_id",
    "api_key_id": "s.key_id",
    "model": "s.model_id",
}

_SUMS = "SUM(u.requests), SUM(u.input_tokens), SUM(u.cached_tokens), SUM(u.output_tokens)"
_SUMMED = (
    "FROM usage u JOIN usage_series s ON s.n = u.series_n WHERE u.organization_id = :organization"
    " AND u.seconds = :seconds AND u.began_at >= :begin AND s.kind = :kind"
)


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: times are Unix seconds, `seconds` is the width of a bucket, `limit` counts buckets.

    `grouped_by` has names of COLUMNS; `only` gives the values of a column that are counted.
    """

    kind: KindOfRequest
    seconds: int
    begin: int
    end: int | None
    limit: int
    grouped_by: frozenset[str]
    only: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Group:
    """Counts of a bucket; a field is None if the report is not grouped by it, or if it was not recorded."""

    project_id: str | None
    user_id: str | None
    api_key_id: str | None
    model: str | None
    counts: Counts


@dataclass(frozen=True, slots=True)
class Page:
    """Buckets by their begin, in order; `next_begin` is None on the last page. Times are Unix seconds."""

    buckets: dict[int, list[Group]]
    next_begin: int | None
    end: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Sums of each bucket by its begin, in Unix seconds, and the groups with most requests; `more`: how many others."""

    buckets: dict[int, Counts]
    groups: list[tuple[str, Counts]]
    more: int


def report(database: Database, administrator: Administrator, query: Query) -> Page:
    """Return a page of a report: each bucket of its time, empty ones too.

    The first bucket is the one that `begin` is in. Raises Error(UNAUTHENTICATED), Error(INVALID) for a begin that is
    too long ago for this width, and for too many groups in one bucket.
    """
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        now = tx.now_micros // SECOND
        _check_reach(query, now)
        # Nothing is counted after now.
        end = min(now + 1, now + 1 if query.end is None else query.end)
        begin = query.begin - query.begin % query.seconds
        until = min(begin + query.limit * query.seconds, end)
        until = _within_rows(tx, administrator.organization_id, query, begin, until)
        rows = _groups(tx, administrator.organization_id, query, begin, until)
    buckets: dict[int, list[Group]] = {one: [] for one in range(begin, until, query.seconds)}
    if len(rows) > GROUPS_MAX:
        # The last bucket may be incomplete, so it is the next page's.
        until = rows[-1][0] // SECOND
        rows = [row for row in rows if row[0] // SECOND < until]
        buckets = {one: groups for one, groups in buckets.items() if one < until}
        if not buckets:
            raise _too_many_groups()
    for row in rows:
        project_id, user_id, key_id, model_id = (value or None for value in row[1:5])
        counts = Counts(*(int(value) for value in row[5:]))
        buckets[row[0] // SECOND].append(Group(project_id, user_id, key_id, model_id, counts))
    following = begin + len(buckets) * query.seconds
    return Page(buckets, following if following < end else None, end)


def summary(
    database: Database, administrator: Administrator, query: Query, *, groups: int
) -> Summary:
    """Return sums over a time up to now, and up to so many groups of one column; of usage without it the name is empty.

    The work is bounded: its earliest buckets are left out where there is too much. Raises Error(UNAUTHENTICATED),
    Error(INVALID) as `report`.
    """
    [by] = query.grouped_by
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        now = tx.now_micros // SECOND
        _check_reach(query, now)
        begin = _since(tx, administrator.organization_id, query)
        values = {
            "organization": administrator.organization_id,
            "seconds": query.seconds,
            "begin": begin * SECOND,
            "kind": query.kind,
        }
        sums = tx.rows(f"SELECT u.began_at, {_SUMS} {_SUMMED} GROUP BY u.began_at", **values)
        found = tx.rows(
            f"SELECT {COLUMNS[by]}, COUNT(*) OVER (), {_SUMS} {_SUMMED} GROUP BY {COLUMNS[by]}"
            f" ORDER BY SUM(u.requests) DESC, {COLUMNS[by]} LIMIT :groups",
            groups=groups,
            **values,
        )
    buckets = {one: Counts() for one in range(begin, now + 1, query.seconds)}
    buckets |= {row[0] // SECOND: Counts(*map(int, row[1:])) for row in sums}
    shown = [(str(row[0]), Counts(*map(int, row[2:]))) for row in found]
    return Summary(buckets, shown, found[0][1] - len(found) if found else 0)


def _since(tx: Tx, organization_id: str, query: Query) -> int:
    """Return where a summary must begin so that it has no more than SUMMED_MAX rows, or one bucket. Reads an index only."""
    beyond = tx.row(
        "SELECT u.began_at FROM usage u WHERE u.organization_id = :organization AND u.seconds = :seconds"
        " AND u.began_at >= :begin ORDER BY u.began_at DESC LIMIT 1 OFFSET :rows",
        organization=organization_id,
        seconds=query.seconds,
        begin=query.begin * SECOND,
        rows=SUMMED_MAX,
    )
    if beyond is None:
        return query.begin
    now = tx.now_micros // SECOND
    return min(int(beyond[0]) // SECOND + query.seconds, now - now % query.seconds)


def _check_reach(query: Query, now: int) -> None:
    reach = REACH.get(query.seconds)
    if reach is None or query.begin >= now - reach - query.seconds:
        return
    name, wider = NAMES[query.seconds], "1h" if query.seconds == MINUTE else "1d"
    least = from_micros((now - reach) * SECOND).strftime("%Y-%m-%dT%H:%M:%SZ")
    raise Error(
        Kind.INVALID,
        f"Invalid value for 'start_time': with bucket_width '{name}' it must be at least {now - reach} ({least})."
        f" For earlier times use bucket_width '{wider}'.",
        param="start_time",
        code="invalid_value",
    )


def _within_rows(tx: Tx, organization_id: str, query: Query, begin: int, until: int) -> int:
    """Return where the page must end so that it has no more than ROWS_MAX rows, or one bucket. Reads an index only."""
    beyond = tx.row(
        "SELECT u.began_at FROM usage u WHERE u.organization_id = :organization AND u.seconds = :seconds"
        " AND u.began_at >= :begin AND u.began_at < :until ORDER BY u.began_at LIMIT 1 OFFSET :rows",
        organization=organization_id,
        seconds=query.seconds,
        begin=begin * SECOND,
        until=until * SECOND,
        rows=ROWS_MAX,
    )
    if beyond is None:
        return until
    return max(int(beyond[0]) // SECOND, min(begin + query.seconds, until))


def _groups(tx: Tx, organization_id: str, query: Query, begin: int, until: int) -> list[Row]:
    """Return up to GROUPS_MAX + 1 groups as rows: begin in microseconds, the four columns ('' if none), and counts."""
    shown = [
        column if name in query.grouped_by else f"'' AS {name}" for name, column in COLUMNS.items()
    ]
    grouped = "".join(f", {COLUMNS[name]}" for name in COLUMNS if name in query.grouped_by)
    narrowed = ""
    values: dict[str, str] = {}
    for name, wanted in query.only.items():
        names = [f"{name}_{number}" for number in range(len(wanted))]
        narrowed += f" AND {COLUMNS[name]} IN ({', '.join(f':{one}' for one in names)})"
        values |= dict(zip(names, wanted, strict=True))
    columns = ", ".join(shown)
    return tx.rows(
        f"SELECT u.began_at, {columns}, SUM(u.requests), SUM(u.input_tokens), SUM(u.cached_tokens),"
        " SUM(u.output_tokens) FROM usage u JOIN usage_series s ON s.n = u.series_n"
        " WHERE u.organization_id = :organization AND u.seconds = :seconds"
        f" AND u.began_at >= :begin AND u.began_at < :until AND s.kind = :kind{narrowed}"
        f" GROUP BY u.began_at{grouped} ORDER BY u.began_at{grouped} LIMIT :limit",
        organization=organization_id,
        seconds=query.seconds,
        begin=begin * SECOND,
        until=until * SECOND,
        kind=query.kind,
        limit=GROUPS_MAX + 1,
        **values,
    )


def _too_many_groups() -> Error:
    return Error(
        Kind.INVALID,
        f"Invalid value for 'group_by': a bucket has more than {GROUPS_MAX} groups. Group by fewer fields, or ask for"
        " some projects, users, API keys or models only.",
        param="group_by",
        code="invalid_value",
    )
