"""Rate limits: how many requests and tokens a minute a project may send to a base, and a key to all of them (section 18).

As at OpenAI, a project's limit is of a model, and its fine-tunes share it: what they use counts to their base.
A row that is missing, or a column that is NULL, means the server's default.
"""

from dataclasses import dataclass
from typing import Final

from tunewarden.config import Config
from tunewarden.db.database import Tx
from tunewarden.token_buckets.buckets import Limit

# "No limit" on the wire, where a number is needed, and in a row: 2^31 - 1, more than anyone sends.
NO_LIMIT: Final = 2**31 - 1
NOT_SET: Final = (None, None)
# One statement a reading.
_OF_REQUEST = (
    "SELECT 0, requests, tokens, NULL FROM rate_limits WHERE project_id = :project AND base = :base"
    " UNION ALL SELECT 1, requests, tokens, bucket FROM key_rate_limits WHERE key_id = :key"
)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What may be sent in a minute; NO_LIMIT is any number."""

    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a limit; None leaves what it is."""

    requests: int | None
    tokens: int | None


UNLIMITED: Final = RateLimit(NO_LIMIT, NO_LIMIT)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits of all projects; `most` is the highest of a project on each base, and what it is unless one is set.

    `of_organization` is the operator's, over all projects of each organization, which its administrators make.
    """

    most: RateLimit
    of_organization: RateLimit = UNLIMITED

    @classmethod
    def of(cls, config: Config) -> "RateLimits":
        """Return the limits with what the settings say, where 0 is none."""
        return cls(
            RateLimit(config.requests_per_minute or NO_LIMIT, config.tokens_per_minute or NO_LIMIT),
            RateLimit(
                config.organization_requests_per_minute or NO_LIMIT,
                config.organization_tokens_per_minute or NO_LIMIT,
            ),
        )

    def of_request(
        self, tx: Tx, *, organization_id: str, project_id: str, base: str, key_id: str
    ) -> tuple[Limit, ...]:
        """Return the limits on a request of this key to a base, or to a fine-tune of it."""
        of_project, of_key, counted_with = self.most, UNLIMITED, key_id
        for is_key, requests, tokens, bucket in tx.rows(
            _OF_REQUEST, project=project_id, base=base, key=key_id
        ):
            if is_key:
                of_key, counted_with = _limit(requests, tokens, of_key), bucket or key_id
            else:
                of_project = _limit(requests, tokens, of_project)
        return (
            *_limits(f"{base} in project {project_id}", of_project),
            *_limits(f"API key {key_id}", of_key, bucket=f"API key {counted_with}"),
            *_limits(f"organization {organization_id}", self.of_organization),
        )

    def of_project(self, tx: Tx, project_id: str) -> dict[str, RateLimit]:
        """Return the limits of a project that were set, by base."""
        rows = tx.rows(
            "SELECT base, requests, tokens FROM rate_limits WHERE project_id = :project",
            project=project_id,
        )
        return {base: _limit(requests, tokens, self.most) for base, requests, tokens in rows}

    def set_of_project(
        self, tx: Tx, project_id: str, base: str, change: Change
    ) -> tuple[RateLimit, bool]:
        """Set a project's limit on a base, which exists; return what it is then, and whether anything changed."""
        before = tx.row(
            "SELECT requests, tokens FROM rate_limits WHERE project_id = :project AND base = :base",
            project=project_id,
            base=base,
        )
        row = tx.row(
            "INSERT INTO rate_limits VALUES (:project, :base, :requests, :tokens)"
            " ON CONFLICT (project_id, base) DO UPDATE SET"
            " requests = COALESCE(excluded.requests, rate_limits.requests),"
            " tokens = COALESCE(excluded.tokens, rate_limits.tokens)"
            " RETURNING requests, tokens",
            project=project_id,
            base=base,
            requests=change.requests,
            tokens=change.tokens,
        )
        assert row is not None, "it was inserted or updated"
        return _limit(row[0], row[1], self.most), row != (before or NOT_SET)


def of_key(tx: Tx, key_id: str) -> RateLimit:
    """Return the limit of a key, over all models."""
    row = tx.row("SELECT requests, tokens FROM key_rate_limits WHERE key_id = :key", key=key_id)
    return UNLIMITED if row is None else _limit(row[0], row[1], UNLIMITED)


def set_of_key(tx: Tx, key_id: str, change: Change) -> tuple[RateLimit, bool]:
    """Set the limit of a key, and of those that share its buckets; return what it is then, and whether it changed."""
    before = tx.row("SELECT requests, tokens FROM key_rate_limits WHERE key_id = :key", key=key_id)
    row = tx.row(
        "INSERT INTO key_rate_limits (key_id, requests, tokens) VALUES (:key, :requests, :tokens)"
        " ON CONFLICT (key_id) DO UPDATE SET"
        " requests = COALESCE(excluded.requests, key_rate_limits.requests),"
        " tokens = COALESCE(excluded.tokens, key_rate_limits.tokens)"
        " RETURNING requests, tokens, bucket",
        key=key_id,
        requests=change.requests,
        tokens=change.tokens,
    )
    assert row is not None, "it was inserted or updated"
    requests, tokens, bucket = row
    tx.run(
        "UPDATE key_rate_limits SET requests = :requests, tokens = :tokens"
        " WHERE key_id = :first OR bucket = :first",
        requests=requests,
        tokens=tokens,
        first=bucket or key_id,
    )
    return _limit(requests, tokens, UNLIMITED), (requests, tokens) != (before or NOT_SET)


def share_of_key(tx: Tx, key_id: str, with_key_id: str) -> None:
    """Give a new key the limit of another one, in the same buckets: together they may send what that one could."""
    row = tx.row(
        "SELECT requests, tokens, bucket FROM key_rate_limits WHERE key_id = :key", key=key_id
    )
    requests, tokens, bucket = row or (*NOT_SET, None)
    tx.run(
        "INSERT INTO key_rate_limits (key_id, requests, tokens, bucket) VALUES (:to, :requests, :tokens, :bucket)",
        to=with_key_id,
        requests=requests,
        tokens=tokens,
        bucket=bucket or key_id,
    )


def _limit(requests: int | None, tokens: int | None, most: RateLimit) -> RateLimit:
    return RateLimit(
        most.requests if requests is None else min(int(requests), most.requests),
        most.tokens if tokens is None else min(int(tokens), most.tokens),
    )


def _limits(subject: str, limit: RateLimit, *, bucket: str = "") -> tuple[Limit, ...]:
    found = (limit.requests, False), (limit.tokens, True)
    return tuple(
        Limit(subject, a_minute, counts_tokens=counts_tokens, bucket=bucket)
        for a_minute, counts_tokens in found
        if a_minute < NO_LIMIT
    )
