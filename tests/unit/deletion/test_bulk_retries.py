"""A bulk deletion that is sent again: who has an answer keeps it, and the rest is held against what was seen."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
from tests.support import fine_tuning_rows as rows
from tests.support import servers

from tunewarden.app import App
from tunewarden.deletion.bulk import bulk_deletions
from tunewarden.deletion.bulk.bulk_deletions import BulkDeletions, Wanted
from tunewarden.deletion.bulk.results import Result, Summary
from tunewarden.deletion.requests import Attempt
from tunewarden.finetuning import job_lineage
from tunewarden.finetuning.states import State
from tunewarden.identity.policy import Caller
from tunewarden.registry import artifacts, models
from tunewarden.registry.models import Model


@pytest.fixture
def app(data: Path) -> App:
    servers.prepare_local_base(data)
    return servers.open_data(data)


@pytest.fixture
def caller(app: App) -> Caller:
    return rows.caller_of(app, _key(app))


@pytest.fixture(autouse=True)
def groups_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_deletions, "GROUP_MAX", 2)


def _key(app: App) -> str:
    return (app.config.data / "owner.key").read_text().strip()


def _imported(app: App, count: int) -> list[Model]:
    return [servers.import_adapter(app, _key(app)) for _ in range(count)]


def _protect(app: App, model: Model, *, is_protected: bool) -> None:
    with app.database.write() as tx:
        models.set_protected(tx, model.n, is_protected=is_protected)


def _seen(app: App, caller: Caller, wanted: Wanted) -> str | None:
    *_, summary = BulkDeletions(app.database, app.executor).plan(caller, wanted)
    assert isinstance(summary, Summary)
    return summary.fingerprint


def _deleted(
    app: App, caller: Caller, wanted: Wanted, attempt: Attempt, *, groups: int | None = None
) -> list[tuple[str, str, Sequence[str]]]:
    """Return what became of each; after so many groups nobody reads on."""
    bulk = BulkDeletions(app.database, app.executor)
    found = islice(bulk.delete(caller, wanted, attempt), groups)
    return [
        (one.artifact_id, one.outcome.value, [reason.code for reason in one.reasons])
        for group in found
        for one in group
        if isinstance(one, Result)
    ]


def test_the_rest_of_a_request_that_broke_off_is_held_against_the_plan_that_it_named(
    app: App, caller: Caller
) -> None:
    first, spared = _imported(app, 2)
    job = rows.make_job(app, _key(app), state=State.SUCCEEDED)
    grown = rows.make_model(app, _key(app), job_id=job)
    freed, last = _imported(app, 2)
    for one in (spared, freed):
        _protect(app, one, is_protected=True)
    wanted = Wanted(tuple(one.id for one in (first, spared, grown, freed, last)))
    attempt = Attempt(idempotency_key="once", if_match=_seen(app, caller, wanted))
    begun = _deleted(app, caller, wanted, attempt, groups=1)
    assert begun == [(first.id, "deleted", []), (spared.id, "spared", ["protected"])]
    for one in (spared, freed):
        _protect(app, one, is_protected=False)
    rows.make_checkpoint(app, _key(app), job, 1, {})
    # Without the header too: the request is the one that named the plan.
    for again in (attempt, Attempt(idempotency_key="once"), attempt):
        assert _deleted(app, caller, wanted, again) == [
            *begun,
            (grown.id, "refused", ["plan_changed"]),
            (freed.id, "refused", ["plan_changed"]),
            (last.id, "deleted", []),
        ]


def test_a_refusal_is_audited_once(app: App, caller: Caller) -> None:
    [spared] = _imported(app, 1)
    _protect(app, spared, is_protected=True)
    for _ in range(3):
        _deleted(app, caller, Wanted((spared.id,)), Attempt(idempotency_key="once"))
    with app.database.read() as tx:
        found = tx.rows("SELECT n FROM audit_events WHERE type = 'deletion.refused'")
    assert len(found) == 1


@pytest.mark.parametrize("is_turned", [False, True])
def test_what_the_request_itself_deleted_changes_no_plan(
    app: App, caller: Caller, *, is_turned: bool
) -> None:
    key = _key(app)
    job = rows.make_job(app, key, state=State.SUCCEEDED)
    file = _training_file(app, job)
    early, late = (rows.make_checkpoint(app, key, job, step, {}) for step in (1, 2))
    made = rows.make_model(app, key, job_id=job)
    [free] = _imported(app, 1)
    ids = [free.id, early.id, made.id, file, late.id]
    wanted = Wanted(tuple(ids[::-1] if is_turned else ids))
    attempt = Attempt(idempotency_key="once", if_match=_seen(app, caller, wanted))
    begun = _deleted(app, caller, wanted, attempt, groups=1)
    done = _deleted(app, caller, wanted, attempt)
    assert done[:2] == begun
    assert {one: (outcome, codes) for one, outcome, codes in done} == dict.fromkeys(
        ids, ("deleted", [])
    )


def _training_file(app: App, job_id: str) -> str:
    with app.database.read() as tx:
        job = job_lineage.by_n(tx, rows.job_n(app, job_id))
        return artifacts.by_n(tx, job.origins[0])[1].id
