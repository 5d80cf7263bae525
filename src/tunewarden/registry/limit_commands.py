"""What administrators do about limits: rate limits of projects and of API keys, and quotas of projects."""

from dataclasses import dataclass

from tunewarden import audit, ids
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys, key_rows, projects
from tunewarden.identity.admin_keys import Administrator
from tunewarden.registry import bases, quota, rate_limits
from tunewarden.registry.quota import ProjectQuota, Quota, QuotaChange
from tunewarden.registry.rate_limits import NO_LIMIT, Change, RateLimit, RateLimits

PREFIX = "rl-"
QuotaUse = tuple[ProjectQuota, ProjectQuota]  # what a project may have, and has


@dataclass(frozen=True, slots=True)
class LimitCommands:
    """Each is one transaction that first checks that the administrator still is one.

    All raise Error(UNAUTHENTICATED), Error(NOT_FOUND) for what is not the organization's, and those that change
    something Error(CONFLICT) for an archived project and Error(INVALID) for numbers that may not be set.
    """

    database: Database
    rate_limits: RateLimits
    quota: Quota

    def page(
        self,
        administrator: Administrator,
        project_id: str,
        *,
        after: str | None,
        before: str | None,
        limit: int,
    ) -> list[tuple[str, RateLimit]]:
        """Return up to `limit` rate limits of a project with their bases, by name; cursors are ids of rate limits."""
        names = sorted(base.name for base in bases.list_all(self.database))
        first, end = 0, len(names)
        if after is not None:
            first = names.index(_base_of(after, names, "after")) + 1
        if before is not None:
            end = names.index(_base_of(before, names, "before"))
            # The page that ends before it.
            first = max(first, end - limit + 1)
        with self.database.read() as tx:
            admin_keys.check_now(tx, administrator)
            projects.find(tx, administrator.organization_id, project_id)
            found = self.rate_limits.of_project(tx, project_id)
        chosen = names[first:end][:limit]
        return [(name, found.get(name, self.rate_limits.most)) for name in chosen]

    def update(
        self, administrator: Administrator, project_id: str, rate_limit_id: str, change: Change
    ) -> tuple[str, RateLimit]:
        """Set a rate limit of a project; return its base and what it is then."""
        _check_rates(change, self.rate_limits.most)
        names = [base.name for base in bases.list_all(self.database)]
        with self.database.write() as tx:
            admin_keys.check_now(tx, administrator)
            projects.find_active(tx, administrator.organization_id, project_id)
            base = _base_of(rate_limit_id, names, "rate_limit_id")
            found, is_changed = self.rate_limits.set_of_project(tx, project_id, base, change)
            if is_changed:
                _note_rates(tx, administrator, f"{PREFIX}{base}", project_id, change)
        return base, found

    def of_key(self, administrator: Administrator, project_id: str, key_id: str) -> RateLimit:
        """Return the rate limit of an API key."""
        with self.database.read() as tx:
            admin_keys.check_now(tx, administrator)
            projects.find(tx, administrator.organization_id, project_id)
            _check_key(tx, project_id, key_id)
            return rate_limits.of_key(tx, key_id)

    def update_key(
        self, administrator: Administrator, project_id: str, key_id: str, change: Change
    ) -> RateLimit:
        """Set the rate limit of an API key; return what it is then."""
        _check_rates(change, RateLimit(NO_LIMIT, NO_LIMIT))
        with self.database.write() as tx:
            admin_keys.check_now(tx, administrator)
            projects.find_active(tx, administrator.organization_id, project_id)
            _check_key(tx, project_id, key_id)
            found, is_changed = rate_limits.set_of_key(tx, key_id, change)
            if is_changed:
                _note_rates(tx, administrator, key_id, project_id, change)
        return found

    def quota_of(self, administrator: Administrator, project_id: str) -> QuotaUse:
        """Return what a project may have, and has."""
        with self.database.read() as tx:
            admin_keys.check_now(tx, administrator)
            projects.find(tx, administrator.organization_id, project_id)
            return self.quota.of(tx, project_id), quota.used(tx, project_id)

    def update_quota(
        self, administrator: Administrator, project_id: str, change: QuotaChange
    ) -> QuotaUse:
        """Set the quota of a project; return what it may then have, and has, which may be more."""
        most = self.quota.of_project
        _check("max_bytes", change.bytes, most.bytes)
        _check("max_files", change.files, most.files)
        _check("max_models", change.models, most.models)
        with self.database.write() as tx:
            admin_keys.check_now(tx, administrator)
            projects.find_active(tx, administrator.organization_id, project_id)
            found, is_changed = self.quota.change(tx, project_id, change)
            if is_changed:
                _note_quota(tx, administrator, project_id, change)
            return found, quota.used(tx, project_id)


def _note_rates(
    tx: Tx, administrator: Administrator, resource_id: str, project_id: str, change: Change
) -> None:
    audit.record(
        tx,
        audit.EventType.RATE_LIMIT_UPDATED,
        organization_id=administrator.organization_id,
        actor=administrator.actor.about(project_id),
        resource_id=resource_id,
        in_project=project_id,
        **_set(max_requests_per_1_minute=change.requests, max_tokens_per_1_minute=change.tokens),
    )


def _note_quota(tx: Tx, administrator: Administrator, project_id: str, change: QuotaChange) -> None:
    audit.record(
        tx,
        audit.EventType.QUOTA_UPDATED,
        organization_id=administrator.organization_id,
        actor=administrator.actor.about(project_id),
        resource_id=project_id,
        **_set(max_bytes=change.bytes, max_files=change.files, max_models=change.models),
    )


def _set(**numbers: int | None) -> dict[str, int]:
    return {name: number for name, number in numbers.items() if number is not None}


def _base_of(rate_limit_id: str, names: list[str], param: str) -> str:
    """Return the base of a rate limit's id. A base's own name is accepted too, unless it begins as such an id."""
    base = rate_limit_id.removeprefix(PREFIX)
    if base not in names:
        said = f"No such rate limit: '{ids.shown(rate_limit_id)}'. Its id is '{PREFIX}' and the name of a base model."
        kind = Kind.NOT_FOUND if param == "rate_limit_id" else Kind.INVALID
        raise Error(kind, said, param=param)
    return base


def _check_key(tx: Tx, project_id: str, key_id: str) -> None:
    key = key_rows.find(tx, key_id)
    if key is None or key.project_id != project_id or key.revoked_at is not None:
        said = f"No such API key: '{ids.shown(key_id)}'."
        raise Error(Kind.NOT_FOUND, said, param="api_key_id")


def _check_rates(change: Change, most: RateLimit) -> None:
    _check("max_requests_per_1_minute", change.requests, most.requests)
    _check("max_tokens_per_1_minute", change.tokens, most.tokens)


def _check(param: str, number: int | None, most: int) -> None:
    if number is not None and not 1 <= number <= most:
        means = ", which means no limit" if most == NO_LIMIT and param.endswith("minute") else ""
        raise Error(
            Kind.INVALID,
            f"Invalid value for '{param}': use 1 to {most}{means}.",
            param=param,
            code="invalid_value",
        )
