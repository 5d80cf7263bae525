"""Users, roles, keys, projects and running streams against a simple model: who may do what, after any row of changes."""

from collections import Counter

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test as run_machine
from tests.lab import budgets
from tests.lab.life_of_access import BASE, Access, Ground, Key, SetClock, User

from tunewarden import audit
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.identity import admin_keys, key_format, organizations, users
from tunewarden.identity.policy import Action, Role
from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    path = tmp_path_factory.mktemp("access") / "ground.sqlite"
    database = SqliteDatabase(path, SetClock(), migrate=True)
    with database.write() as tx:
        owner = organizations.find_or_create(tx, "acme")
        user_id = users.add(tx, owner.id, name="o", email=None, role=Role.OWNER, actor=audit.SERVER)
        _, text = admin_keys.create(
            tx, organization_id=owner.id, user_id=user_id, name="a", actor=audit.SERVER
        )
        bases.add(
            tx, name=BASE, kind=BaseKind.REMOTE, location="http://x", engine_model="b", modules={}
        )
    administrator = admin_keys.look_up(database, key_format.present(text), "req")
    copy = path.with_name("copy.sqlite")
    database.copy_to(copy)
    return Ground(copy, owner.project_id, User(user_id, None, is_owner=True), administrator)


def _run(
    machine: type[Access],
    ground: Ground,
    runs: int,
    steps: int,
    phases: tuple[Phase, ...] = (Phase.generate, Phase.shrink),
) -> Counter[str]:
    machine.ground, machine.told = ground, Counter()
    seed = budgets.new_seed()
    print(f"seed {seed}")
    chosen = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_machine(hypothesis.seed(seed)(machine), settings=chosen)
    return machine.told


def test_access_is_what_the_model_says_after_any_row_of_changes(ground: Ground) -> None:
    runs = budgets.count(25, 2_000)
    steps = budgets.count(30, 50)
    told = _run(Access, ground, runs, steps)
    print(f"{runs} runs of up to {steps} steps: {dict(told)}")
    assert told["runs"] >= runs
    assert told["cut"]
    assert told["clocks set back"]


class ForgetsWhoWasRefused(Access):
    """A control: nobody notes that a key was refused because it had expired."""

    def _looked_up(self, key: Key, action: Action) -> int:
        caller_refused = super()._looked_up(key, action)
        with self.database.write() as tx:
            tx.run("UPDATE api_keys SET expired_at = NULL")
        return caller_refused


class FollowsNobody(Access):
    """A control: workers do not look at their callers again."""

    async def _follow(self) -> None:
        pass


@pytest.mark.parametrize("wrong", [ForgetsWhoWasRefused, FollowsNobody])
def test_control_what_is_wrong_is_caught(ground: Ground, wrong: type[Access]) -> None:
    with pytest.raises(AssertionError):
        _run(wrong, ground, 300, 30, (Phase.generate,))
    print(f"{wrong.__name__} was caught after {wrong.told['runs']} runs")
