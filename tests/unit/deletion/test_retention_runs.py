"""A run that an Owner asks for: bound to a preview it does that and nothing else, and it is the Owner's act."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support import fine_tuning_rows, servers
from tests.support.bulk import make_older

from tunewarden import app as composition
from tunewarden.app import App, open_app
from tunewarden.config import Config
from tunewarden.deletion.bulk.results import Outcome, Result, Summary
from tunewarden.deletion.replay import SERVER
from tunewarden.deletion.retention import retention_runs
from tunewarden.deletion.retention.retention_runs import Retention
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.ids import token
from tunewarden.registry.criteria import Criteria
from tunewarden.registry.retention_rules import RetentionRules, Rule, RuleAction, Terms


class Place(NamedTuple):
    """An organization with its Owner, and what runs rules."""

    app: App
    key: str
    owner: Caller
    retention: Retention

    def rule(self, suffix: str, keep_latest: int) -> Rule:
        criteria = Criteria(suffix=suffix, keep_latest=keep_latest)
        terms = Terms(criteria=criteria, action=RuleAction.DELETE, notice_days=0)
        return RetentionRules(self.app.database).create(self.owner, terms)

    def change(self, rule: Rule, criteria: Criteria) -> None:
        """Change what the rule chooses."""

        def change(terms: Terms) -> Terms:
            return replace(terms, criteria=criteria)

        RetentionRules(self.app.database).change(self.owner, rule.id, change)

    def make(self, suffix: str, count: int = 1) -> list[str]:
        """Make models of the last hour; return their ids, the oldest first."""
        made = [servers.import_adapter(self.app, self.key, suffix=suffix).id for _ in range(count)]
        for age, one in enumerate(reversed(made)):
            make_older(self.app, one, age / 100)
        return made

    def fingerprint(self, rule: Rule) -> str:
        *_, summary = self.retention.preview(self.owner, rule.id)
        assert isinstance(summary, Summary)
        assert summary.fingerprint is not None
        return summary.fingerprint

    def left(self, models: Sequence[str]) -> list[str]:
        sql = "SELECT state FROM artifacts WHERE id = :id"
        return [one for one in models if self.app.database.peek(sql, id=one) == ("active",)]

    def events(self, resource: str) -> list[tuple[str, str | None, dict[str, object]]]:
        with self.app.database.read() as tx:
            rows = tx.rows(
                "SELECT type, actor_key_id, details FROM audit_events WHERE resource_id = :id ORDER BY n",
                id=resource,
            )
        return [(kind, key, json.loads(details)) for kind, key, details in rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    data: Path = tmp_path_factory.mktemp("runs") / "data"
    servers.prepare_local_base(data)
    app = open_app(Config(data=data, scratch_may_be_a_disk=True))
    key = (data / "owner.key").read_text().strip()
    owner = fine_tuning_rows.caller_of(app, key)
    return Place(app, key, owner, composition.retention_runner(app))


@pytest.fixture
def suffix() -> str:
    return f"s{token(8)}"


def _newer(place: Place, suffix: str, _: Rule) -> None:
    place.make(suffix)


def _more_is_chosen(place: Place, _: str, rule: Rule) -> None:
    place.change(rule, replace(rule.terms.criteria, keep_latest=1))


def _the_same_is_chosen(place: Place, suffix: str, rule: Rule) -> None:
    place.change(rule, replace(rule.terms.criteria, suffix=f"{suffix[:-1]}?"))


@pytest.mark.parametrize(
    ("kept", "happens"),
    [
        (2, _newer),
        (3, _newer),
        (2, _more_is_chosen),
        (9, _more_is_chosen),
        (2, _the_same_is_chosen),
    ],
)
def test_what_was_not_previewed_is_not_run(
    place: Place, suffix: str, kept: int, happens: Callable[[Place, str, Rule], None]
) -> None:
    """A model is imported, or the rule changed, after the preview: also after one of nothing, which nobody confirms."""
    models = place.make(suffix, 3)
    rule = place.rule(suffix, kept)
    seen = place.fingerprint(rule)
    happens(place, suffix, rule)
    with pytest.raises(Error) as refused:
        place.retention.run(place.owner, rule.id, if_match=seen)
    assert (refused.value.kind, refused.value.code) == (Kind.PRECONDITION_FAILED, "plan_changed")
    assert place.left(models) == models
    assert "retention.rule.run" not in {kind for kind, *_ in place.events(rule.id)}


def test_what_happens_after_the_comparison_adds_nothing_to_a_run(place: Place, suffix: str) -> None:
    oldest, older, old = place.make(suffix, 3)
    rule = place.rule(suffix, 2)
    results = place.retention.run(place.owner, rule.id, if_match=place.fingerprint(rule))
    [newest] = place.make(suffix)
    assert place.left([oldest, older, old, newest]) == [oldest, older, old, newest]
    *done, summary = results
    became = {one.artifact_id: one for one in done if isinstance(one, Result)}
    assert became[oldest].outcome is Outcome.DELETED
    assert became[older].outcome is Outcome.SPARED, "now it is not among the latest two either"
    assert [why.code for why in became[older].reasons] == ["not_previewed"]
    assert isinstance(summary, Summary)
    assert place.left([oldest, older, old, newest]) == [older, old, newest]


def test_a_rule_that_is_changed_after_the_comparison_deletes_nothing(
    place: Place, suffix: str
) -> None:
    models = place.make(suffix, 3)
    rule = place.rule(suffix, 2)
    results = place.retention.run(place.owner, rule.id, if_match=place.fingerprint(rule))
    _more_is_chosen(place, suffix, rule)
    *_, summary = results
    assert isinstance(summary, Summary)
    assert summary.stopped is not None
    assert place.left(models) == models


def test_a_run_that_is_asked_for_is_the_act_of_who_asks(place: Place, suffix: str) -> None:
    old, _ = place.make(suffix, 2)
    rule = place.rule(suffix, 1)
    [*_, summary] = place.retention.run(place.owner, rule.id, if_match=place.fingerprint(rule))
    assert isinstance(summary, Summary)
    assert summary.counts[Outcome.DELETED] == 1
    events = {kind: (key, details) for kind, key, details in place.events(old)}
    for kind in ("deletion.requested", "resource.deleted"):
        assert events[kind][0] == place.owner.key_id, kind
    assert events["deletion.requested"][1]["reason"] == f"retention rule {rule.id}"
    run = place.events(rule.id)[-1]
    assert run == ("retention.rule.run", place.owner.key_id, {"action": "delete", "models": 1})


def test_a_run_that_is_due_is_the_act_of_the_server(place: Place, suffix: str) -> None:
    old, _ = place.make(suffix, 2)
    rule = place.rule(suffix, 1)
    change = RetentionRules(place.app.database).change
    change(place.owner, rule.id, lambda terms: replace(terms, is_enabled=True))
    with place.app.database.read() as tx:
        now = tx.now_micros
    place.retention.run_due(now)
    change(place.owner, rule.id, lambda terms: replace(terms, is_enabled=False))
    assert place.left([old]) == []
    assert {key for kind, key, _ in place.events(old) if "delet" in kind} == {None}
    sql = "SELECT d.requested_by FROM deletions d JOIN artifacts a ON a.n = d.artifact_n WHERE a.id = :id"
    assert place.app.database.peek(sql, id=old) == (SERVER,)


def test_who_loses_the_role_during_a_run_deletes_no_more(
    place: Place, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I8: the role is read again in the transaction of each group."""
    monkeypatch.setattr(retention_runs, "GROUP_MAX", 1)
    models = place.make(suffix, 4)
    rule = place.rule(suffix, 1)
    results = place.retention.run(place.owner, rule.id)
    while place.left(models) == models:
        assert isinstance(next(results), Result)
    sql = "UPDATE users SET role = :role WHERE id = :id"
    with place.app.database.write() as tx:
        tx.run(sql, role="reader", id=place.owner.user_id)
    *_, summary = results
    with place.app.database.write() as tx:
        tx.run(sql, role="owner", id=place.owner.user_id)
    assert isinstance(summary, Summary)
    assert summary.stopped is not None
    assert summary.stopped.kind is Kind.FORBIDDEN
    assert len(place.left(models)) == 3
