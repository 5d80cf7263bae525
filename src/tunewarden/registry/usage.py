"""Usage in rows: requests and tokens by key, model and kind of request, for each minute, hour and day.

A request is counted in all three widths at once. Minutes are dropped after a day and hours after 90 days; days stay for
three years. Ids stay as they were: usage of a deleted model, key or user is still theirs. Counts are for people, for
limits of retention and for reports, not for billing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tunewarden.db.database import Database, Tx

KindOfRequest = Literal["completions", "embeddings"]
COMPLETIONS: Final = "completions"
EMBEDDINGS: Final = "embeddings"

SECOND: Final = 1_000_000
MINUTE, HOUR, DAY = 60, 3600, 86_400
# How long rows of each width are kept, in seconds. A report of minutes may begin a day ago: hence an hour more.
KEPT: Final[Mapping[int, int]] = {MINUTE: DAY + HOUR, HOUR: 90 * DAY, DAY: 3 * 365 * DAY}
# Rows that one transaction drops: deletions of models wait for it.
DROPPED_AT_ONCE: Final = 500
KEYS_AT_ONCE: Final = 100

_SERIES = (
    "INSERT INTO usage_series (organization_id, key_id, user_id, project_id, model_id, kind, last_used_at)"
    " VALUES (:organization, :key, :user, :project, :model, :kind, :now)"
    " ON CONFLICT (organization_id, key_id, model_id, kind, user_id, project_id)"
    " DO UPDATE SET last_used_at = excluded.last_used_at RETURNING n"
)
_COUNT = (
    "INSERT INTO usage VALUES (:organization, :seconds, :began, :series, :requests, :input, :cached, :output)"
    " ON CONFLICT (organization_id, seconds, began_at, series_n) DO UPDATE SET"
    " requests = usage.requests + excluded.requests,"
    " input_tokens = usage.input_tokens + excluded.input_tokens,"
    " cached_tokens = usage.cached_tokens + excluded.cached_tokens,"
    " output_tokens = usage.output_tokens + excluded.output_tokens"
)
_USE = (
    "INSERT INTO key_uses VALUES (:key, :organization, :now)"
    " ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at"
)


@dataclass(frozen=True, slots=True)
class Series:
    """Whose usage, and of what."""

    organization_id: str
    key_id: str
    user_id: str
    project_id: str
    model_id: str
    kind: KindOfRequest


@dataclass(slots=True)
class Counts:
    """Requests and tokens; `cached_tokens` are a part of `input_tokens`."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def add(self, other: "Counts") -> None:
        """Add other counts."""
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.cached_tokens += other.cached_tokens
        self.output_tokens += other.output_tokens


@dataclass(frozen=True, slots=True)
class ModelUse:
    """How a model was used: `last_used_at` in microseconds, None if it never was.

    Requests of the last 60 minutes and of the last 24 hours, each with the current one.
    """

    last_used_at: int | None
    requests_last_hour: int
    requests_last_day: int


def add(tx: Tx, series: Series, counts: Counts) -> None:
    """Count requests that ended now."""
    found = tx.row(
        _SERIES,
        organization=series.organization_id,
        key=series.key_id,
        user=series.user_id,
        project=series.project_id,
        model=series.model_id,
        kind=series.kind,
        now=tx.now_micros,
    )
    assert found is not None, "an upsert returns its row"
    for seconds in KEPT:
        tx.run(
            _COUNT,
            organization=series.organization_id,
            seconds=seconds,
            began=begin_of(tx.now_micros, seconds),
            series=found[0],
            requests=counts.requests,
            input=counts.input_tokens,
            cached=counts.cached_tokens,
            output=counts.output_tokens,
        )


def note_key(tx: Tx, organization_id: str, key_id: str) -> None:
    """Note that a key was used now."""
    tx.run(_USE, key=key_id, organization=organization_id, now=tx.now_micros)


def of_model(tx: Tx, organization_id: str, model_id: str) -> ModelUse:
    """Return how a model was used, by all keys; work is bounded by the series of the model and 60 + 24 rows of each."""
    last = last_use_of(tx, organization_id, model_id)
    if last is None:
        return ModelUse(None, 0, 0)
    hour = _requests_since(tx, organization_id, model_id, HOUR, MINUTE)
    day = _requests_since(tx, organization_id, model_id, DAY, HOUR)
    return ModelUse(last, hour, day)


def last_use_of(tx: Tx, organization_id: str, model_id: str) -> int | None:
    """Return when a model was last used, in microseconds, as far as that was written; None if it never was."""
    row = tx.row(
        "SELECT MAX(last_used_at) FROM usage_series"
        " WHERE organization_id = :organization AND model_id = :model",
        organization=organization_id,
        model=model_id,
    )
    return row[0] if row else None


def last_uses_of_keys(tx: Tx, key_ids: Iterable[str]) -> dict[str, int]:
    """Return when keys were last used, in microseconds; a key that never was is missing."""
    found = {}
    for key_id in key_ids:
        row = tx.row("SELECT last_used_at FROM key_uses WHERE key_id = :key", key=key_id)
        if row is not None:
            found[key_id] = int(row[0])
    return found


def last_uses_of_users(tx: Tx, user_ids: Sequence[str]) -> dict[str, int]:
    """Return when some users, at most a page of them, last used an API key, in microseconds; who never did is missing."""
    names = {f"user{place}": user_id for place, user_id in enumerate(user_ids)}
    if not names:
        return {}
    asked = ", ".join(f":{name}" for name in names)
    rows = tx.rows(
        "SELECT k.user_id, MAX(u.last_used_at) FROM api_keys k JOIN key_uses u ON u.key_id = k.id"
        f" WHERE k.user_id IN ({asked}) GROUP BY k.user_id",
        **names,
    )
    return {user_id: int(last_used_at) for user_id, last_used_at in rows}


def drop_old(database: Database, *, only_minutes: bool = False) -> bool:
    """Drop some rows that are older than KEPT, in one transaction; return whether more may be left.

    A series goes with its last row.
    """
    with database.read() as tx:
        old = _old(tx, (MINUTE,) if only_minutes else tuple(KEPT))
    if old is None:
        return False
    with database.write(survives=False, below_floor=True) as tx:
        _drop(tx, *old)
    return True


def begin_of(micros: int, seconds: int) -> int:
    """Return when the minute, hour or day began that a time is in, in microseconds."""
    return micros - micros % (seconds * SECOND)


def _requests_since(tx: Tx, organization_id: str, model_id: str, ago: int, seconds: int) -> int:
    row = tx.row(
        "SELECT SUM(u.requests) FROM usage_series s JOIN usage u ON u.series_n = s.n"
        " WHERE s.organization_id = :organization AND s.model_id = :model"
        " AND u.seconds = :seconds AND u.began_at > :since",
        organization=organization_id,
        model=model_id,
        seconds=seconds,
        since=begin_of(tx.now_micros, seconds) - ago * SECOND,
    )
    return 0 if row is None or row[0] is None else int(row[0])


def _old(tx: Tx, widths: tuple[int, ...]) -> tuple[str, int, int] | None:
    """Return an organization, a width and a time before which rows of these are too old; None if none is."""
    organization_id = ""
    while True:
        found = tx.row(
            "SELECT MIN(organization_id) FROM usage WHERE organization_id > :after",
            after=organization_id,
        )
        if found is None or found[0] is None:
            return None
        organization_id = found[0]
        for seconds in widths:
            before = tx.now_micros - KEPT[seconds] * SECOND
            oldest = tx.row(
                "SELECT MIN(began_at) FROM usage"
                " WHERE organization_id = :organization AND seconds = :seconds",
                organization=organization_id,
                seconds=seconds,
            )
            if oldest is not None and oldest[0] is not None and oldest[0] < before:
                return organization_id, seconds, before


def _drop(tx: Tx, organization_id: str, seconds: int, before: int) -> None:
    rows = tx.rows(
        "SELECT began_at, series_n FROM usage WHERE organization_id = :organization"
        " AND seconds = :seconds AND began_at < :before ORDER BY began_at, series_n LIMIT :size",
        organization=organization_id,
        seconds=seconds,
        before=before,
        size=DROPPED_AT_ONCE,
    )
    for began_at, series_n in rows:
        tx.run(
            "DELETE FROM usage WHERE organization_id = :organization AND seconds = :seconds"
            " AND began_at = :began AND series_n = :series",
            organization=organization_id,
            seconds=seconds,
            began=began_at,
            series=series_n,
        )
        if seconds == DAY:
            tx.run(
                "DELETE FROM usage_series WHERE n = :series"
                " AND NOT EXISTS (SELECT 1 FROM usage u WHERE u.series_n = :series)",
                series=series_n,
            )
