"""The protocol broken on purpose: each mutant is caught by a named check, the product by none."""

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.lab import mutants
from tests.lab import receipt_mutants as ours
from tests.lab.history import History, Mix, lived
from tests.lab.judge import judge, leaves, require
from tests.lab.power import Power
from tests.lab.power_cuts import record, verdicts_of
from tests.lab.restores import judge_fate, judge_log, start
from tests.lab.simulation import NeverQueues, Simulation, Stream, Worker
from tests.lab.thief import identities_within_reach
from tests.lab.world import Made, Parts, Violated, World, copied, new_world, one_dies

from tunewarden.db.database import Tx
from tunewarden.deletion import requests
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys, policy
from tunewarden.identity.policy import Caller
from tunewarden.registry import artifacts, models
from tunewarden.registry.artifacts import ArtifactKind, State
from tunewarden.registry.models import Model, note_load
from tunewarden_receipts import receipt

Check = Callable[["Stage", Any], None]


class Product(Parts):
    """Nothing wrong; it waits little for another runner, for the simulation's sake."""

    bound_seconds = 0.05
    executor_type = NeverQueues


@dataclass
class Stage:
    """A closed installation to copy, and a history of copies."""

    world: World
    owner: Caller
    made: list[Made]
    history: History


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with new_world(Product()) as world, lived() as history:
        owner = world.caller()
        made = [world.make(owner, f"canary-{number}") for number in range(4)]
        world.close()
        gc.collect()
        yield Stage(world, owner, made, history)


def _deleted_until_cut(stage: Stage, world: World) -> bool:
    with one_dies():
        world.open()
        world.delete(stage.owner, stage.made[0])
        world.resume()
    world.close()
    return world.power.dead


def crash_anywhere(stage: Stage, parts: Parts) -> None:
    """A crash at each effect, and the start of the server."""
    was_cut, first = True, 0
    while was_cut:
        with copied(stage.world, parts=parts, power=Power(first)) as world:
            was_cut, first = _deleted_until_cut(stage, world), first + 1
            judge(world.restart(), stage.made[0])


def adoption_anywhere(stage: Stage, parts: Parts) -> None:
    """A crash at each effect, and another runner of a server that runs on."""
    was_cut, first = True, 0
    while was_cut:
        with copied(stage.world, parts=parts, power=Power(first)) as world:
            was_cut, first = _deleted_until_cut(stage, world), first + 1
            world.power = Power()
            world.open().resume()
            judge(world, stage.made[0])


def recovery_with_a_mutant(stage: Stage, parts: Parts) -> None:
    """A crash at each effect of the product, and the start of a mutant."""
    was_cut, first = True, 0
    while was_cut:
        with copied(stage.world, power=Power(first)) as world:
            was_cut, first = _deleted_until_cut(stage, world), first + 1
            world.parts = parts
            judge(world.restart(), stage.made[0])


def the_answer(stage: Stage, parts: Parts) -> None:
    """What is true at the moment of the answer, and the files that an engine may read at D5."""
    with copied(stage.world, parts=parts) as world:
        made = stage.made[0]
        world.open()

        def evicting(internal_id: str) -> None:
            assert world.app.blobs.names(f"{internal_id}/"), "D5"

        world.engine.on_evict = evicting
        try:
            deletion = world.app.executor.delete(
                stage.owner, ArtifactKind.MODEL, made.model.id, Attempt()
            )
        except Error as refused:
            raise Violated("D5", "files went under a running engine") from refused
        has_key = world.app.keyring.contains(made.model.key_id)
        require("I3", "its key is there after the answer", not has_key)
        require("I4", "no leaf after the answer", len(leaves(world, made)) == 1)
        require("I4", "no receipt after the answer", deletion.receipt)
        receipt.verify(deletion.receipt or b"", world.app.open_log()[1].public_pem())


def the_medium(stage: Stage, parts: Parts) -> None:
    """What a look at the old blocks finds: every file of the keyring is held on to by a link."""
    with copied(stage.world, parts=parts) as world:
        world.open()
        held = world.root / "medium"
        held.mkdir()
        for number, path in enumerate(world.config.keyring.rglob("*")):
            if path.is_file():
                os.link(path, held / str(number))
        world.delete(stage.owner, stage.made[0])
        files = [*held.iterdir(), *world.config.keyring.rglob("*")]
        reached = identities_within_reach(path.read_bytes() for path in files if path.is_file())
        require("I3", "its key is on the medium", stage.made[0].identity not in reached)
        require("I6", "another's key is lost", stage.made[1].identity in reached)


def old_parts(stage: Stage, parts: Parts) -> None:
    """A new log with an old database, and the keyring new or old."""
    last = len(stage.history.names) - 1
    for keyring in (last, 0):
        mix = Mix(database=0, keyring=keyring, log=last, blobs=0)
        with stage.history.mixed(mix) as world:
            world.parts = parts
            if start(world) is None:
                for fate in stage.history.fates.values():
                    judge_fate(world, fate, mix)


def an_old_log(stage: Stage, parts: Parts) -> None:
    """An old log beside a database and a keyring that know more."""
    last = len(stage.history.names) - 1
    mix = Mix(database=last, keyring=last, log=0, blobs=last)
    with stage.history.mixed(mix) as world:
        world.parts = parts
        if start(world) is None:
            judge_log(stage.history, world, mix)


def what_engines_did(stage: Stage, parts: Parts) -> None:
    """Each way in which an engine can lose a model: what its receipt says is what happened."""
    with copied(stage.world, parts=parts) as world:
        unused, used, lost, dirty = stage.made
        engine = world.open().engine
        for made in (used, lost):
            engine.load(made.model.internal_id)
            note_load(world.app.database, made.model.n, engine.incarnation, is_loaded=True)
        world.delete(stage.owner, unused)
        world.delete(stage.owner, used)
        for made in (unused, used):
            is_held = made.model.internal_id in engine.loaded
            require("I3", "an engine holds it after the answer", not is_held)
        engine.restart()
        # Another load begins, and comes to nothing: the end of the first engine is not forgotten.
        note_load(world.app.database, lost.model.n, engine.incarnation, is_loaded=False)
        world.delete(stage.owner, lost)
        engine.load(dirty.model.internal_id)
        engine.is_dirty = True
        world.delete(stage.owner, dirty)
        world.resume()
        for made in stage.made:
            judge(world, made)


def power_cuts(stage: Stage, synchronous: str) -> None:
    """Power cuts under the database."""
    recording = record(stage.world, stage.owner, stage.made, synchronous)
    verdicts = verdicts_of(recording, 200, seed=1)
    require("I6", f"a power cut: {dict(verdicts)}", set(verdicts) == {"sound"})


def every_place_in_a_request(
    stage: Stage, worker_type: type[Worker], parts: Parts | None = None
) -> None:
    """A deletion at each place in a request, which goes on as it can, and another request after it."""
    for place in range(12):
        with copied(stage.world, parts=parts) as world:
            made, machine = (
                stage.made[0],
                Simulation(world.open(), stage.owner, stage.made, seed=place).machine,
            )
            worker = worker_type(machine)
            first, sleep = worker.serve(made), world.clock.sleep

            def sleeping(
                seconds: float, first: Stream = first, sleep: Callable[[float], None] = sleep
            ) -> None:
                sleep(seconds)
                next(first, None)

            world.clock.sleep = sleeping  # type: ignore[method-assign]  # the test's own step
            for _ in range(place):
                next(first, None)
            world.delete(stage.owner, made)
            for stream in (first, worker.serve(made)):
                for _ in stream:
                    pass


def requests_without_a_fence(stage: Stage, parts: Parts) -> None:
    """The same, by a worker that does right."""
    every_place_in_a_request(stage, Worker, parts)


CAUGHT: list[tuple[Any, Check, str]] = [
    (mutants.KeyErasedBeforeTheCommit(), adoption_anywhere, "I6: an active model cannot be read"),
    (mutants.ReceiptBeforeTheKey(), crash_anywhere, "I3: its key is in the keyring"),
    (mutants.AnswerBeforeTheKey(), the_answer, "I3: its key is there after the answer"),
    (mutants.AppendNotIdempotent(), adoption_anywhere, "I4: it has 2 deletion leaves"),
    (mutants.StatementMadeAnewAfterACrash(), adoption_anywhere, "I4: it has 2 deletion leaves"),
    (mutants.KeyStepNotIdempotent(), adoption_anywhere, "I6: a deletion does not come to its end"),
    (mutants.BlobsErasedBeforeEviction(), the_answer, "D5: files went under a running engine"),
    (mutants.RecoverySkipsAStep(), recovery_with_a_mutant, "I3: its key is in the keyring"),
    (mutants.RecoveryWithoutTheLog(), old_parts, "I4: it has 2 deletion leaves"),
    (mutants.RecoveryWithoutTheKeyringsAge(), old_parts, "I10: a deleted model can be opened"),
    (mutants.KeyringRenamesAndDoesNotOverwrite(), the_medium, "I3: its key is on the medium"),
    (mutants.FinishBeforeTheLog(), adoption_anywhere, "I4: it has 0 deletion leaves"),
    (ours.ZeroedWithoutLooking(), what_engines_did, "I17: weights are said to be zeroed"),
    (ours.ResidueIgnored(), what_engines_did, "I17: weights are said to be zeroed"),
    (ours.RestartsUnnoticed(), what_engines_did, "I17: the end of an engine that had it is hidden"),
    (ours.EngineNotAsked(), what_engines_did, "I3: an engine holds it after the answer"),
    (ours.BlobsReportedAndNotErased(), crash_anywhere, "I15: its blobs are there"),
    (ours.RecoveryWithoutTheLogsAge(), an_old_log, "I11: the log has lost entries"),
    ("NORMAL", power_cuts, "I6: a power cut"),
    (mutants.Unguarded, every_place_in_a_request, "I1: a request began after the answer"),
    (mutants.Caching, every_place_in_a_request, "I1: a request began after the answer"),
    (ours.FenceSkipped(), requests_without_a_fence, "I"),
]


def _name(value: object) -> str:
    kind = value if isinstance(value, type) else type(value)
    return value if isinstance(value, str) else getattr(value, "__name__", kind.__name__)


@pytest.mark.parametrize(("mutant", "check", "says"), CAUGHT, ids=_name)
def test_a_mutant_of_the_protocol_is_caught(
    stage: Stage, mutant: object, check: Check, says: str
) -> None:
    with pytest.raises(Violated) as caught:
        check(stage, mutant)
    assert str(caught.value).startswith(says), caught.value
    print(f"{_name(mutant)}: caught by {check.__name__}: {caught.value}")


@pytest.mark.parametrize(
    ("check", "unmutated"),
    [
        *((check, Product()) for check in dict.fromkeys(check for _, check, _ in CAUGHT[:18])),
        (power_cuts, ""),
        (every_place_in_a_request, Worker),
    ],
    ids=_name,
)
def test_the_product_passes_the_same_check(stage: Stage, check: Check, unmutated: object) -> None:
    """The control."""
    check(stage, unmutated)


def demotion_after_authentication(stage: Stage) -> None:
    """An Owner that is demoted between authentication and the transaction."""
    with copied(stage.world) as world:
        caller = world.open().caller(organization="acme")
        with world.app.database.write() as tx:
            tx.run("UPDATE users SET role = 'reader' WHERE id = :id", id=caller.user_id)
        try:
            world.delete(caller, stage.made[0])
        except Error as refused:
            require("I8", "a demoted Owner is not told so", refused.kind is Kind.FORBIDDEN)
            return
        raise Violated("I8", "a demoted Owner deleted a model")


def another_keys_retry(stage: Stage) -> None:
    """A second DELETE with another key of the same organization that says it is a retry."""
    with copied(stage.world) as world:
        other = world.open().caller(organization="acme")
        world.delete(stage.owner, stage.made[0], Attempt(idempotency_key="one"))
        for attempt in (Attempt(retry_count=1), Attempt(idempotency_key="one")):
            try:
                world.delete(other, stage.made[0], attempt)
            except Error as refused:
                require("I5", "it is not told 404", refused.kind is Kind.NOT_FOUND)
            else:
                raise Violated("I5", "another key got the first one's answer")


def an_id_that_was_deleted(stage: Stage) -> None:
    """An import that is given the id of a deleted model."""
    with copied(stage.world) as world:
        made = stage.made[0]
        world.open().delete(stage.owner, made)
        world.resume()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "mint_id", lambda **_: made.model.id)
            with (
                pytest.raises(Exception, match="UNIQUE constraint") if not _reuses() else one_dies()
            ):
                world.make(stage.owner)
        with world.app.database.read() as tx:
            found = artifacts.find_any(
                tx, ArtifactKind.MODEL, stage.owner.organization_id, made.model.id
            )
        is_deleted = found is not None and found.state is State.DELETED
        require("I7", "an id was used twice", is_deleted)


def _reuses() -> bool:
    return models.register is _register_over_the_tombstone


_register = models.register


def _register_over_the_tombstone(tx: Tx, *, model: Model, **rest: Any) -> Model:
    for table, column in (
        ("deletions", "artifact_n"),
        ("blobs", "artifact_n"),
        ("models", "n"),
        ("artifacts", "n"),
    ):
        query = f"DELETE FROM {table} WHERE {column} IN (SELECT n FROM artifacts WHERE id = :id)"
        tx.run(query, id=model.id)
    return _register(tx, model=model, **rest)


def test_a_role_that_is_not_read_again_is_caught(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    demotion_after_authentication(stage)
    monkeypatch.setattr(
        keys, "authorize_now", lambda _, caller, action: policy.authorize(caller, action)
    )
    with pytest.raises(Violated, match="I8: a demoted Owner deleted a model"):
        demotion_after_authentication(stage)


def test_an_answer_replayed_for_another_key_is_caught(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_keys_retry(stage)
    monkeypatch.setattr(requests, "_is_repetition", lambda *_: True)
    with pytest.raises(Violated, match="I5: another key got the first one's answer"):
        another_keys_retry(stage)


def test_an_id_that_is_used_twice_is_caught(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    an_id_that_was_deleted(stage)
    monkeypatch.setattr(models, "register", _register_over_the_tombstone)
    with pytest.raises(Violated, match="I7: an id was used twice"):
        an_id_that_was_deleted(stage)
