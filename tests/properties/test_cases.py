"""Cases: deletions that one transaction commits, done member by member and ended by one summary."""

import gc
from collections.abc import Iterator

import pytest
from tests.lab.judge import judge, judge_nothing_else
from tests.lab.world import Start, World, copied, started

from tunewarden.deletion import case_rows, records, together
from tunewarden.deletion.case_rows import Case
from tunewarden.deletion.together import Asked
from tunewarden.errors import Error, Kind
from tunewarden.registry.artifacts import State

COUNT = 5


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with started(COUNT + 1) as begun:
        yield begun
    gc.collect()


def asked(start: Start, log_size: int = 0) -> Asked:
    return Asked(
        requested_by=start.owner.key_id, actor=start.owner.actor, log_size=log_size, request_id="r"
    )


def commit(world: World, start: Start) -> Case:
    """Commit a case of all models but one."""
    chosen = [made.model for made in start.made[:COUNT]]
    with world.app.database.write() as tx:
        return together.commit_case(tx, start.owner.organization_id, chosen, asked(start))


def test_one_transaction_commits_all_members_and_each_is_deleted_with_a_receipt(
    start: Start,
) -> None:
    with copied(start.world) as world:
        world.open()
        case = commit(world, start)
        members = case_rows.members_of(world.app.database, case)
        assert [one.artifact_id for one in members] == [
            made.model.id for made in start.made[:COUNT]
        ]
        assert case.size == COUNT
        assert case_rows.undeleted(world.app.database, case.n, after=0, limit=99) == [
            (found.n, one.deletion_id)
            for one in members
            if (found := records.find(world.app.database, one.deletion_id))
        ]
        world.resume()
        assert {judge(world, made) for made in start.made[:COUNT]} == {State.DELETED}
        assert judge(world, start.made[COUNT]) is State.ACTIVE
        judge_nothing_else(world)


def test_a_case_that_fails_at_its_end_commits_nothing(start: Start) -> None:
    with copied(start.world) as world:
        world.open()
        chosen = [made.model for made in start.made]

        def fails() -> None:
            with world.app.database.write() as tx:
                together.commit_case(tx, start.owner.organization_id, chosen, asked(start))
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fails()
        assert case_rows.unfinished(world.app.database) == []
        assert {judge(world, made) for made in start.made} == {State.ACTIVE}


def test_more_members_than_fit_into_one_transaction_are_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "MEMBERS_MAX", COUNT - 1)
    with copied(start.world) as world:
        world.open()
        with pytest.raises(Error, match="Nothing was deleted") as refused:
            commit(world, start)
        assert (refused.value.kind, refused.value.code) == (Kind.CONFLICT, "case_too_large")
        assert {judge(world, made) for made in start.made} == {State.ACTIVE}
