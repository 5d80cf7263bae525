"""Crashes at every effect of a case, and at pairs of them: all members are gone, with receipts, or none is."""

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from tests.lab import budgets
from tests.lab.judge import judge, judge_nothing_else, require
from tests.lab.power import Power
from tests.lab.restores import judge_retries
from tests.lab.world import Made, Parts, Violated, World, copied, new_world, one_dies

from tunewarden.clock import SystemClock
from tunewarden.db.database import Tx
from tunewarden.deletion import case_rows, group_requests, records, together
from tunewarden.deletion.case_rows import Case, CaseStatus
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import Attempt, RequestedDeletion
from tunewarden.deletion.together import Asked
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry.artifacts import Artifact, ArtifactKind, State
from tunewarden.registry.holds import Holds
from tunewarden_receipts import cases, receipt
from tunewarden_receipts.deletion_case import CaseLeaf

PAIRS = 60
CASCADE = Attempt(with_models=True)
JOB = (
    "INSERT INTO jobs (n, id, internal_id, organization_id, project_id, status, model, base, start_n,"
    " training_n, method, hyperparameters, suffix, seed, created_by, created_at, finished_at)"
    " VALUES (:n, :id, :id, :organization, :project, 'succeeded', 'tiny', 'tiny', :start,"
    " :file, 'supervised', '{}', '', 1, 'k', 0, 1)"
)


@dataclass
class Start:
    """A closed installation: a file, all that learned from it, and what did not."""

    world: World
    owner: Caller
    file: Made
    learned: list[Made]
    others: list[Made] = field(default_factory=list)

    @property
    def members(self) -> list[Made]:
        return [self.file, *self.learned]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with new_world() as world:
        owner = world.caller()
        file, other = (world.make_file(owner, b'{"messages": 1}\n' * n) for n in (50, 60))
        made = [world.make(owner, f"canary-{number}") for number in range(4)]
        with world.app.database.write() as tx:
            # The file -> a model with a checkpoint -> a model that another file tuned on; and one of that file alone.
            for n, (start_n, trained_on) in enumerate(
                [(None, file), (made[0].model.n, other), (None, other)], start=1
            ):
                tx.run(
                    JOB,
                    n=n,
                    id=f"ftjob-{n}",
                    organization=owner.organization_id,
                    project=owner.project_id,
                    start=start_n,
                    file=trained_on.model.n,
                )
            for one, (job_n, step) in zip(
                made, [(1, None), (1, 2), (2, None), (3, None)], strict=True
            ):
                tx.run(
                    "UPDATE models SET job_n = :job, step = :step WHERE n = :n",
                    job=job_n,
                    step=step,
                    n=one.model.n,
                )
        world.close()
        yield Start(world, owner, file, made[:3], [other, made[3]])


def erase_until(world: World, start: Start) -> None:
    with one_dies():
        world.open()
        world.app.executor.delete(start.owner, ArtifactKind.FILE, start.file.model.id, CASCADE)
        world.resume()
    world.close()


def judge_all(world: World, start: Start) -> State:
    """Require all or nothing of the members, with one summary that commits to their receipts; return their state."""
    states = {judge(world, made) for made in start.members}
    require("I6", f"members of a case are {states}", len(states) == 1)
    require("I14", "others changed", {judge(world, one) for one in start.others} == {State.ACTIVE})
    judge_nothing_else(world)
    log, signer = world.app.open_log()
    key = signer.public_pem()
    facts = [receipt.verify_entry(entry, key) for _, entry in log.entries()]
    summaries = sum(isinstance(one, CaseLeaf) for one in facts)
    [state] = states
    if state is State.ACTIVE:
        require("I4", "a leaf speaks of a case that was never begun", not summaries)
        return state
    require("I4", f"a case has {summaries} summaries", summaries == 1)
    with world.app.database.read() as tx:
        case = case_rows.of_origin(tx, start.file.model.n)
    require("I6", "a case is left unfinished", case and case.status is CaseStatus.COMPLETE)
    assert case is not None
    assert case.receipt is not None
    members = [
        records.find(world.app.database, one.deletion_id)
        for one in case_rows.members_of(world.app.database, case)
    ]
    proven = [receipt.verify(one.receipt or b"", key) for one in members if one]
    cases.check_members(receipt.verify(case.receipt, key), proven)
    events = [
        row[0]
        for row in _read(world, "SELECT type FROM audit_events WHERE resource_id = :id", id=case.id)
    ]
    ended = ["deletion.case.finished", "deletion.case.requested"]
    require("I6", f"its events are {events}", sorted(events) == ended)
    return state


def _read(world: World, sql: str, **parameters: object) -> list[tuple[str]]:
    with world.app.database.read() as tx:
        return tx.rows(sql, **parameters)


def effects_of(start: Start) -> int:
    with copied(start.world) as world:
        erase_until(world, start)
        total = len(world.power.effects)
        world.restart()
        assert judge_all(world, start) is State.DELETED
    return total


@pytest.mark.long
def test_a_crash_at_any_effect_of_a_case_leaves_all_of_it_or_nothing(start: Start) -> None:
    total = effects_of(start)
    ends: Counter[State] = Counter()
    for cut_at in range(total):
        with copied(start.world, power=Power(cut_at)) as world:
            erase_until(world, start)
            world.restart()
            ends[_judged(world, start, cut_at)] += 1
    print(f"{total} crashes of a case with {len(start.members)} members: {dict(ends)}")
    assert set(ends) == {State.ACTIVE, State.DELETED}


@pytest.mark.long
def test_so_does_a_crash_of_the_recovery_that_follows(start: Start) -> None:
    total = effects_of(start)
    seed = budgets.new_seed()
    pairs = budgets.sampled([(i, j) for i in range(total) for j in range(total)], PAIRS, seed)
    ends: Counter[State] = Counter()
    for first, second in pairs:
        with copied(start.world, power=Power(first)) as world:
            erase_until(world, start)
            with one_dies():
                world.restart(power=Power(second))
            world.restart()
            ends[_judged(world, start, (first, second))] += 1
    print(f"{len(pairs)} of {total * total} pairs, seed {seed}: {dict(ends)}")
    assert ends[State.DELETED]


@pytest.mark.long
def test_another_process_adopts_a_case_wherever_the_first_one_died(start: Start) -> None:
    total = effects_of(start)
    for cut_at in range(0, total, budgets.count(3, 1)):
        with copied(start.world, power=Power(cut_at)) as world:
            erase_until(world, start)
            # No recovery: the server runs on.
            world.power = Power()
            world.open().resume()
            _judged(world, start, cut_at)


def _judged(world: World, start: Start, crash: object) -> State:
    try:
        return judge_all(world, start)
    except Violated as violated:
        raise AssertionError(f"crash at {crash}: {violated}") from violated


def test_control_a_case_that_nobody_resumes_is_seen_to_be_half_done(start: Start) -> None:
    half = effects_of(start) // 2
    with copied(start.world, power=Power(half)) as world:
        erase_until(world, start)
        world.power = Power()
        world.open()
        with pytest.raises(Violated):
            judge_all(world, start)


def test_a_restored_database_finds_the_end_of_its_case_in_the_log(start: Start) -> None:
    """The log is newer than the database, which knows the case and not that it is finished."""
    with copied(start.world) as world:
        erase_until(world, start)
        world.open()
        with world.app.database.write() as tx:
            tx.run(
                "UPDATE deletion_cases SET finished_at = NULL, receipt = NULL, log_index = NULL,"
                " statement = NULL, log_since = NULL"
            )
            tx.run("UPDATE log_seen SET size = 0")
        size = world.log().size()
        world.restart()
        assert world.log().size() == size, "no second summary"
        with world.app.database.read() as tx:
            case = case_rows.of_origin(tx, start.file.model.n)
        assert case is not None
        _, signer = world.app.open_log()
        assert case.receipt is not None
        summary = receipt.verify(case.receipt, signer.public_pem())
        assert summary.disclosed is not None
        assert summary.disclosed.artifact_id == start.file.model.id


@pytest.mark.parametrize("was_under_way", [False, True])
def test_a_database_from_before_the_case_gets_it_back_from_the_log(
    start: Start, was_under_way: bool
) -> None:
    """Its row, its receipt, and its members as the leaf proves them; a second recovery changes nothing."""
    with copied(start.world) as world:
        app = world.open().app
        app.database.copy_to(world.root / "backup.sqlite")
        if was_under_way:  # a member whose deletion began before, at another time
            executor = app.executor
            attempt = Attempt(force=True)
            asked = executor.commit(
                lambda size: group_requests.request_together(
                    app.database,
                    start.owner,
                    [(ArtifactKind.MODEL, start.learned[2].model.id)],
                    attempt,
                    log_size=size,
                )
            )
            assert isinstance(asked[0], RequestedDeletion)
        erase_until(world, start)
        with world.open().app.database.read() as tx:
            before = case_rows.of_origin(tx, start.file.model.n)
        assert before is not None
        world.close()
        for old in world.config.data.glob("tunewarden.sqlite*"):
            old.unlink()
        shutil.copyfile(world.root / "backup.sqlite", world.config.database)
        for _ in range(2):
            world.open()
            world.parts.recover(world.app)
            world.resume()
            with world.app.database.read() as tx:
                found = case_rows.of_origin(tx, start.file.model.n)
            assert found is not None
            assert (found.id, found.size, found.requested_at, found.requested_by) == (
                before.id,
                before.size,
                before.requested_at,
                before.requested_by,
            )
            assert found.status is CaseStatus.COMPLETE
            members = case_rows.members_of(world.app.database, found)
            assert len(members) == found.size
            _, signer = world.app.open_log()
            assert found.receipt is not None
            summary = receipt.verify(found.receipt, signer.public_pem())
            assert summary.disclosed is not None
            assert summary.disclosed.artifact_id == start.file.model.id
            receipts = [records.find(world.app.database, one.deletion_id) for one in members]
            proven = [
                receipt.verify(one.receipt or b"", signer.public_pem())
                for one in receipts
                if one is not None
            ]
            cases.check_members(summary, proven)
            judge_retries(world, start.owner, start.file)
            world.close()


class Impatient(Parts):
    bound_seconds = 0.0


def test_beyond_the_bound_the_answer_names_the_case_and_a_retry_joins_it(start: Start) -> None:
    with copied(start.world, parts=Impatient()) as world:
        world.open()
        file = start.file.model.id
        with pytest.raises(Error, match="retry") as refused:
            world.app.executor.delete(start.owner, ArtifactKind.FILE, file, CASCADE)
        assert refused.value.kind is Kind.UNAVAILABLE
        [case] = case_rows.unfinished(world.app.database)
        assert refused.value.deletion_case == case.id
        again = Attempt(with_models=True, retry_count=1)
        with pytest.raises(Error) as joined:
            world.app.executor.delete(start.owner, ArtifactKind.FILE, file, again)
        assert joined.value.deletion_case == case.id
        world.resume()
        done = world.app.executor.delete(start.owner, ArtifactKind.FILE, file, again)
        assert done.artifact_id == file
        with pytest.raises(Error) as second:
            world.app.executor.delete(start.owner, ArtifactKind.FILE, file, CASCADE)
        assert second.value.kind is Kind.NOT_FOUND
        assert judge_all(world, start) is State.DELETED


class RealTime(Parts):
    """Threads wait for one another in real time."""

    clock_type = SystemClock


def _races(start: Start, world: World) -> tuple[bool, bool]:
    """Place a hold on the last member while a case is committed; return whether each was done."""
    holds = Holds(world.app.database, world.app.keyring)
    target = start.learned[2].model
    gate = threading.Barrier(2)
    done = {"hold": False, "case": False}

    def hold() -> None:
        gate.wait()
        with _refusal({Kind.NOT_FOUND}):
            holds.place(start.owner, ArtifactKind.MODEL, target.id, "a matter")
            done["hold"] = True

    def erase() -> None:
        gate.wait()
        with _refusal({Kind.CONFLICT}):
            world.app.executor.delete(start.owner, ArtifactKind.FILE, start.file.model.id, CASCADE)
            done["case"] = True

    threads = [threading.Thread(target=one) for one in (hold, erase)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done["hold"], done["case"]


@contextmanager
def _refusal(kinds: set[Kind]) -> Iterator[None]:
    try:
        yield
    except Error as error:
        if error.kind not in kinds:
            raise


def test_a_hold_comes_before_a_case_or_after_it_and_never_between(start: Start) -> None:
    outcomes: Counter[tuple[bool, bool]] = Counter()
    for _ in range(budgets.count(15, 300)):
        with copied(start.world, parts=RealTime()) as world:
            world.open()
            held, erased = _races(start, world)
            outcomes[held, erased] += 1
            world.resume()
            assert judge_all(world, start) is (State.DELETED if erased else State.ACTIVE)
    print({f"hold {h}, case {e}": n for (h, e), n in outcomes.items()})
    assert set(outcomes) <= {(True, False), (False, True)}


def test_control_a_case_of_two_transactions_lets_a_hold_come_between(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: whoever commits member by member deletes what another holds by then."""

    def one_by_one(
        tx: Tx, organization_id: str, chosen: list[Artifact], asked: Asked, **more: object
    ) -> Case:
        raise _Split(list(chosen), asked)

    with copied(start.world, parts=RealTime()) as world:
        world.open()
        monkeypatch.setattr(together, "commit_case", one_by_one)
        deletions: list[Deletion] = []
        with pytest.raises(_Split) as split:
            world.app.executor.delete(start.owner, ArtifactKind.FILE, start.file.model.id, CASCADE)
        *first, last = split.value.chosen
        for one in first:
            with world.app.database.write() as tx:
                deletions += together.commit_all(tx, [one], split.value.asked)
        holds = Holds(world.app.database, world.app.keyring)
        holds.place(start.owner, ArtifactKind.FILE, last.id, "a matter")
        world.resume()
        with pytest.raises(Violated, match="members of a case are"):
            judge_all(world, start)


class _Split(Exception):
    def __init__(self, chosen: list[Artifact], asked: Asked) -> None:
        super().__init__()
        self.chosen, self.asked = chosen, asked
