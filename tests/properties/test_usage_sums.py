"""Usage adds up: whatever a report is grouped by and however it is paged, its sums are those of what was counted."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.clock import START, HandClock

from tunewarden import audit
from tunewarden.clock import to_micros
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.errors import Error
from tunewarden.identity import admin_keys, organizations, users
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import Caller, ProjectRole, Role
from tunewarden.registry import usage, usage_reports
from tunewarden.registry.model_lookup import Target
from tunewarden.registry.usage import COMPLETIONS, DAY, EMBEDDINGS, HOUR, MINUTE, Series
from tunewarden.registry.usage_counter import UsageCounter
from tunewarden.registry.usage_reports import COLUMNS, Group, Query

BEGAN = int(START.timestamp())
KEYS = ("key_a", "key_b", "key_c")
MODELS = ("base", "ft:base:o::1", "ft:base:o::2")
OF_KEY = {
    "key_a": ("user_1", "proj_1"),
    "key_b": ("user_1", "proj_2"),
    "key_c": ("user_2", "proj_2"),
}


@dataclass(frozen=True)
class Request:
    """One request, or some time that passes before the next."""

    pause: float
    key: str
    model: str
    kind: usage.KindOfRequest
    tokens: tuple[int, int, int]
    is_flushed: bool


requests = st.lists(
    st.builds(
        Request,
        pause=st.sampled_from([0, 1, 59, 3600, 40_000]),
        key=st.sampled_from(KEYS),
        model=st.sampled_from(MODELS),
        kind=st.sampled_from([COMPLETIONS, EMBEDDINGS]),
        tokens=st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 50)),
        is_flushed=st.booleans(),
    ),
    max_size=25,
)


class Place:
    """A database with an organization, its administrator, and a worker's counter."""

    def __init__(self, path: Path) -> None:
        self.clock = HandClock()
        self.database = SqliteDatabase(path, self.clock, migrate=True)
        with self.database.write() as tx:
            owner = organizations.find_or_create(tx, "o")
            user = users.add(
                tx, owner.id, name="x", email=None, role=Role.OWNER, actor=audit.SERVER
            )
            key, _ = admin_keys.create(
                tx, organization_id=owner.id, user_id=user, name="x", actor=audit.SERVER
            )
        self.administrator = Administrator(
            key_id=key.id,
            user_id=user,
            organization_id=owner.id,
            organization_name="o",
            request_id="req_1",
        )
        self.counter = UsageCounter(self.database, self.clock)

    def count(self, one: Request) -> None:
        user, project = OF_KEY[one.key]
        caller = Caller(
            key_id=one.key,
            user_id=user,
            organization_id=self.administrator.organization_id,
            organization_name="o",
            project_id=project,
            role=Role.READER,
            project_role=ProjectRole.MEMBER,
            scopes=frozenset(),
            request_id="",
        )
        self.counter.add(caller, target(one.model), one.kind, one.tokens)

    def ask(self, **fields: Any) -> Query:
        query = Query(COMPLETIONS, DAY, BEGAN, None, 31, frozenset(), {})
        return replace(query, **fields)

    def groups(self, query: Query) -> Iterator[tuple[int, Group]]:
        """Every group of every page, with the begin of its bucket."""
        while True:
            page = usage_reports.report(self.database, self.administrator, query)
            assert len(page.buckets) <= query.limit
            for begin, groups in page.buckets.items():
                yield from ((begin, group) for group in groups)
            if page.next_begin is None:
                return
            assert page.next_begin == begin + query.seconds
            query = replace(query, begin=page.next_begin, end=page.end)


def target(model: str) -> Target:
    base = SimpleNamespace(name="base")
    return cast(
        "Target", SimpleNamespace(public_id=model, base=base, n=None if model == "base" else 1)
    )


@contextmanager
def place() -> Iterator[Place]:
    with TemporaryDirectory() as name:
        yield Place(Path(name) / "usage.sqlite")


def _sum(groups: Iterator[tuple[int, Group]]) -> tuple[int, int, int, int]:
    total = usage.Counts()
    for _, group in groups:
        total.add(group.counts)
    return total.requests, total.input_tokens, total.output_tokens, total.cached_tokens


@settings(max_examples=60)
@given(
    asked=requests,
    grouped=st.frozensets(st.sampled_from(sorted(COLUMNS))),
    seconds=st.sampled_from([HOUR, DAY]),
    limit=st.integers(1, 31),
)
def test_sums_by_any_group_are_the_total(
    asked: list[Request], grouped: frozenset[str], seconds: int, limit: int
) -> None:
    with place() as at:
        for one in asked:
            at.clock.sleep(one.pause)
            at.count(one)
            if one.is_flushed:
                at.counter.flush()
        at.counter.flush()
        for kind in (COMPLETIONS, EMBEDDINGS):
            mine = [one for one in asked if one.kind == kind]
            total = (len(mine), *(sum(one.tokens[at] for one in mine) for at in range(3)))
            query = at.ask(kind=kind, grouped_by=grouped, seconds=seconds, limit=limit)
            found = list(at.groups(query))
            assert _sum(iter(found)) == total
            shown = [(begin, g.project_id, g.user_id, g.api_key_id, g.model) for begin, g in found]
            assert len(set(shown)) == len(shown), "a group stands once in its bucket"
            for key in KEYS:
                only = replace(query, only={"api_key_id": (key,)})
                assert _sum(at.groups(only))[0] == sum(one.key == key for one in mine)
            by_model = Counter(one.model for one in mine)
            for model in MODELS:
                only = replace(query, only={"model": (model,)})
                assert _sum(at.groups(only))[0] == by_model[model]


@settings(max_examples=30)
@given(asked=requests)
def test_what_cannot_be_written_is_kept_and_counted_once(asked: list[Request]) -> None:
    with place() as at:
        for number, one in enumerate(asked):
            at.count(one)
            if one.is_flushed:
                taken = at.counter.take()
                if number % 2:
                    at.counter.write(taken)
                at.counter.put_back(taken)
        at.counter.flush()
        found = sum(_sum(at.groups(at.ask(kind=kind)))[0] for kind in (COMPLETIONS, EMBEDDINGS))
        assert found == len(asked)


def test_the_widths_agree_and_each_is_kept_as_long_as_it_says() -> None:
    with place() as at:
        one = Request(0, "key_a", "base", COMPLETIONS, (2, 1, 0), is_flushed=True)
        for _ in range(3):
            at.count(one)
            at.counter.flush()
            at.clock.sleep(MINUTE)
        now = int(at.clock.now().timestamp())
        for seconds in (MINUTE, HOUR, DAY):
            assert _sum(at.groups(at.ask(seconds=seconds, limit=31)))[0] == 3
        assert not usage.drop_old(at.database)
        for age, widths in ((2 * DAY, 2), (100 * DAY, 1), (4 * 365 * DAY, 0)):
            at.clock.sleep(now + age - at.clock.now().timestamp())
            while usage.drop_old(at.database):
                pass
            with at.database.read() as tx:
                left = tx.rows("SELECT seconds, SUM(requests) FROM usage GROUP BY seconds")
                series = tx.rows("SELECT n FROM usage_series")
            assert [count for _, count in left] == [3] * widths
            assert len(series) == (1 if widths else 0), "a series goes with its last row"


def test_a_clock_that_jumped_drops_minutes_only() -> None:
    with place() as at:
        at.count(Request(0, "key_a", "base", COMPLETIONS, (2, 1, 0), is_flushed=True))
        at.counter.flush()
        at.clock.sleep(10 * 365 * DAY)
        while usage.drop_old(at.database, only_minutes=True):
            pass
        with at.database.read() as tx:
            assert tx.rows("SELECT seconds FROM usage ORDER BY seconds") == [(HOUR,), (DAY,)]


def test_counts_of_no_more_series_than_there_is_room_for_are_kept(monkeypatch: Any) -> None:
    monkeypatch.setattr("tunewarden.registry.usage_counter.SERIES_MAX", 10)
    with place() as at:
        for number in range(25):
            at.count(Request(0, "key_a", f"ft:{number}", COMPLETIONS, (1, 1, 0), is_flushed=False))
        assert at.counter.uncounted == 15
        taken = at.counter.take()
        for number in range(25, 32):
            at.count(Request(0, "key_a", f"ft:{number}", COMPLETIONS, (1, 1, 0), is_flushed=False))
        at.counter.put_back(taken)
        assert at.counter.uncounted == 15 + 7
        at.counter.flush()
        assert _sum(at.groups(at.ask()))[0] == 10


def test_a_page_ends_before_it_is_too_much(monkeypatch: Any) -> None:
    monkeypatch.setattr(usage_reports, "ROWS_MAX", 5)
    monkeypatch.setattr(usage_reports, "GROUPS_MAX", 6)
    with place() as at:
        for day in range(4):
            for number in range(3 + day):
                at.count(
                    Request(0, "key_a", f"ft:{number}", COMPLETIONS, (1, 1, 0), is_flushed=False)
                )
            at.counter.flush()
            at.clock.sleep(DAY)
        query = at.ask(grouped_by=frozenset({"model"}))
        first = usage_reports.report(at.database, at.administrator, query)
        assert [len(groups) for groups in first.buckets.values()] == [3]
        assert Counter(begin for begin, _ in at.groups(query)).most_common() == [
            (BEGAN - BEGAN % DAY + day * DAY, 3 + day) for day in (3, 2, 1, 0)
        ]
        monkeypatch.setattr(usage_reports, "GROUPS_MAX", 3)
        with pytest.raises(Error, match="more than 3 groups") as refused:
            list(at.groups(query))
        assert refused.value.param == "group_by"


def test_a_summary_has_any_number_of_groups_and_begins_where_it_is_not_too_much(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(usage_reports, "GROUPS_MAX", 2)
    with place() as at:
        for day in range(4):
            for number in range(3 + day):
                tokens = (10, 2, 1)
                at.count(Request(0, "key_a", f"ft:{number}", COMPLETIONS, tokens, is_flushed=False))
            at.counter.flush()
            at.clock.sleep(DAY)
        days = [BEGAN - BEGAN % DAY + day * DAY for day in range(5)]
        query = at.ask(grouped_by=frozenset({"model"}), begin=days[0])

        def requests(groups: int = 4) -> tuple[dict[int, int], list[tuple[str, int]], int]:
            found = usage_reports.summary(at.database, at.administrator, query, groups=groups)
            by_day = {begin: counts.requests for begin, counts in found.buckets.items()}
            return by_day, [(name, counts.requests) for name, counts in found.groups], found.more

        by_day, groups, more = requests()
        assert list(by_day.items()) == list(zip(days, (3, 4, 5, 6, 0), strict=True))
        assert groups == [("ft:0", 4), ("ft:1", 4), ("ft:2", 4), ("ft:3", 3)]
        assert more == 2
        # The last two days have 11 rows, or 6 if the one before is too much.
        for most, since in ((18, 0), (17, 1), (11, 2), (10, 3), (2, 4)):
            monkeypatch.setattr(usage_reports, "SUMMED_MAX", most)
            assert list(requests()[0]) == days[since:]


def test_use_of_a_model_is_told_to_the_minute() -> None:
    with place() as at:
        organization = at.administrator.organization_id
        for ago in (26 * HOUR, 23 * HOUR, 3 * HOUR, 30 * MINUTE, 0):
            at.clock.sleep(BEGAN + 26 * HOUR - ago - at.clock.now().timestamp())
            at.count(Request(0, "key_a", MODELS[1], COMPLETIONS, (1, 1, 0), is_flushed=True))
            at.counter.flush()
        at.count(Request(0, "key_b", MODELS[1], EMBEDDINGS, (1, 0, 0), is_flushed=True))
        at.counter.flush()
        with at.database.read() as tx:
            used = usage.of_model(tx, organization, MODELS[1])
            assert (used.requests_last_hour, used.requests_last_day) == (3, 5)
            assert used.last_used_at is not None
            assert 0 <= to_micros(at.clock.now()) - used.last_used_at < 1_000_000
            assert usage.of_model(tx, organization, MODELS[2]) == usage.ModelUse(None, 0, 0)
            assert usage.of_model(tx, "org_other", MODELS[1]) == usage.ModelUse(None, 0, 0)
            keys = usage.last_uses_of_keys(tx, KEYS)
        assert set(keys) == {"key_a", "key_b"}


def test_a_series_is_of_whom_it_was() -> None:
    with place() as at:
        organization = at.administrator.organization_id
        with at.database.write() as tx:
            for project in ("proj_1", "proj_2"):
                series = Series(organization, "key_a", "user_1", project, "base", COMPLETIONS)
                usage.add(tx, series, usage.Counts(1, 2, 0, 3))
        query = at.ask(grouped_by=frozenset({"project_id"}))
        found = {group.project_id: group.counts.requests for _, group in at.groups(query)}
        assert found == {"proj_1": 1, "proj_2": 1}
