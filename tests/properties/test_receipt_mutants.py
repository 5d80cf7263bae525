"""The rules of format 2 broken on purpose: each mutant is caught by a named check, the product by none."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import apsw
import pytest
import rfc8785
from tests.lab.history import History, Mix, lived
from tests.lab.judge import leaves, require
from tests.lab.restores import judge_fate, start
from tests.lab.world import Violated, new_world
from tests.support.receipts import SIGNER, receipts

from tunewarden.deletion import records, replay
from tunewarden.registry import artifacts
from tunewarden_receipts import leaf, receipt
from tunewarden_receipts.leaf import DeletionLeaf, Disclosure

Check = Callable[[History], None]


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    with lived() as made:
        yield made


def what_strangers_learn(_: History) -> None:
    """Two deletions of one Owner: the log neither links them nor confirms a guess of a name."""
    with new_world() as world:
        owner = world.caller()
        made = [world.make(owner, f"canary-{number}") for number in range(2)]
        for one in made:
            world.delete(owner, one)
        said = [fact for one in made for _, fact in leaves(world, one)]
        first, second = (fact.commitments for fact in said if isinstance(fact, DeletionLeaf))
        is_linked = first.organization_id == second.organization_id
        require("I9", "two leaves can be linked", not is_linked)
        for name in (made[0].model.id, owner.organization_id, owner.key_id):
            guess = hashlib.sha256(name.encode()).hexdigest()
            guesses = {guess, hashlib.sha256(b"artifactId:" + name.encode()).hexdigest()}
            is_confirmed = guesses & {first.artifact_id, first.organization_id, first.requested_by}
            require("I9", "a guess of a name is confirmed", not is_confirmed)
        entries = b"".join(entry for _, entry in world.log().entries())
        require("I9", "a name is in the clear", made[0].model.id.encode() not in entries)


def an_old_database(history: History) -> None:
    """A new log beside a database that knows the models and not that they were deleted."""
    last = len(history.names) - 1
    mix = Mix(database=0, keyring=last, log=last, blobs=0)
    with history.mixed(mix) as world:
        require("I10", "it did not start", start(world) is None)
        for fate in history.fates.values():
            judge_fate(world, fate, mix)


def a_row_of_another_history(history: History) -> None:
    """A database in which the internal id of a deleted model is another model's."""
    last = len(history.names) - 1
    fate = next(one for one in history.fates.values() if one.logged_at is not None)
    with history.mixed(Mix(database=0, keyring=last, log=last, blobs=0)) as world:
        database = apsw.Connection(str(world.config.database))
        database.execute(
            "UPDATE artifacts SET id = id || 'x' WHERE id = ?", (fate.made.model.id,)
        ).fetchall()
        database.close()
        refused = start(world)
        require("I10", "a leaf was applied to a row that it does not mean", refused is not None)
        assert refused is not None
        assert refused.code == "histories_differ"


def a_changed_disclosure(_: History) -> None:
    """A receipt that discloses another value than its leaf commits to."""
    verified = receipt.verify(receipts()[1], SIGNER.public_pem())
    assert verified.disclosed is not None
    changed = replace(verified.disclosed, artifact_id="ft:tiny:acme:another:a1B2c3D4")
    shown = rfc8785.dumps(leaf.disclosure_json(changed))
    ours = rfc8785.dumps(leaf.disclosure_json(verified.disclosed))
    try:
        receipt.verify(receipts()[1].replace(ours, shown), SIGNER.public_pem())
    except receipt.ReceiptError:
        return
    raise Violated("I4", "a receipt names a model that its leaf does not mean")


def _unsalted(_salt: bytes, member: str, value: Any) -> bytes:
    text = value.encode() if isinstance(value, str) else rfc8785.dumps(value)
    return hashlib.sha256(member.encode() + b":" + text).digest()


@dataclass(frozen=True, slots=True)
class Mutant:
    """`name` in the module `where` replaced by `wrong`, and the check that must say so."""

    what: str
    where: ModuleType
    name: str
    wrong: Any
    check: Check
    says: str


MUTANTS = [
    Mutant(
        "one salt for all",
        artifacts, "random_bytes", bytes,
        what_strangers_learn, "I9: two leaves can be linked",
    ),
    Mutant(
        "digests without a salt",
        leaf, "commit", lambda *arguments: _unsalted(*arguments).hex(),
        what_strangers_learn, "I9: two leaves can be linked",
    ),
    Mutant(
        "D10 does not check the commitments",
        replay, "_names", lambda *_: True,
        a_row_of_another_history, "I10: a leaf was applied to a row that it does not mean",
    ),
    Mutant(
        "D10 forgets the second leaf",
        records, "record_blobs_leaf", lambda *_: None,
        an_old_database, "I4: it has 2 leaves about its blobs",
    ),
    Mutant(
        "D10 rebuilds a receipt without names",
        replay, "read_disclosure", lambda _, deletion: Disclosure(deletion.salt.hex()),
        an_old_database, "I4: its receipt does not name the model",
    ),
    Mutant(
        "the verifier believes the disclosure",
        receipt, "check_disclosure", lambda *_: None,
        a_changed_disclosure, "I4: a receipt names a model that its leaf does not mean",
    ),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_of_format_2_is_caught(
    history: History, monkeypatch: pytest.MonkeyPatch, mutant: Mutant
) -> None:
    monkeypatch.setattr(mutant.where, mutant.name, mutant.wrong)
    with pytest.raises(Violated) as caught:
        mutant.check(history)
    assert str(caught.value).startswith(mutant.says), caught.value
    print(f"{mutant.what}: caught by {mutant.check.__name__}: {caught.value}")


@pytest.mark.parametrize("check", dict.fromkeys(mutant.check for mutant in MUTANTS))
def test_the_product_passes_the_same_check(history: History, check: Check) -> None:
    """The control."""
    check(history)
