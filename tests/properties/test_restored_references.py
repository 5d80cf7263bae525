"""An older database meets a newer log: what was deleted since is needed by nothing any more, neither alias nor job (D10)."""

import gc
import shutil
from collections.abc import Iterator
from functools import partial

import pytest
from tests.lab.judge import judge
from tests.lab.world import BASE, Start, World, copied, started

from tunewarden.deletion.requests import Attempt
from tunewarden.finetuning import creation, jobs
from tunewarden.finetuning.creation import JobRequest
from tunewarden.finetuning.hyperparameters import parse
from tunewarden.finetuning.states import Status
from tunewarden.registry.aliases import Aliases
from tunewarden.registry.artifacts import State


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with started(2) as begun:
        yield begun


def _restore(world: World) -> None:
    """Put the backup in place of the database, and start; no runner resumes anything."""
    world.close()
    gc.collect()
    for old in world.config.data.glob("tunewarden.sqlite*"):
        old.unlink()
    shutil.copyfile(world.root / "backup.sqlite", world.config.database)
    world.open()
    world.parts.recover(world.app)


def _aliases(world: World, start: Start) -> dict[str, list[str]]:
    found = Aliases(world.app.database).page(start.owner, after=None, limit=9)
    return {one.name: [target.model_id for target in one.current.targets] for one in found}


def test_no_alias_means_what_the_log_says_was_deleted(start: Start) -> None:
    gone, stays = (made.model.id for made in start.made)
    with copied(start.world) as world:
        point = partial(Aliases(world.open().app.database).set, start.owner, is_new=True)
        point("prod", {gone: 1})
        point("split", {gone: 1, stays: 1})
        world.app.database.copy_to(world.root / "backup.sqlite")
        world.delete(start.owner, start.made[0], Attempt(force=True))
        after = _aliases(world, start)
        _restore(world)
        world.resume()
        # A receipt that is rebuilt from the log proves the same by a newer checkpoint.
        world.acknowledged.clear()
        assert judge(world, start.made[0]) is State.DELETED
        assert _aliases(world, start) == after == {"split": [stays]}


@pytest.mark.parametrize("loses_log", [False, True])
def test_no_job_goes_on_that_needs_what_was_deleted(start: Start, loses_log: bool) -> None:
    with copied(start.world) as world:
        app = world.open().app
        file = world.make_file(start.owner, b'{"messages": 1}\n')
        method, values = parse(None, None)
        request = JobRequest(BASE, file.model.id, None, method, values, "", 1, None)
        job = creation.create(
            app.database, app.memory, app.keyring, app.drafts.quota, start.owner, request
        ).job
        app.database.copy_to(world.root / "backup.sqlite")
        if loses_log:
            # A key that is gone without a leaf: its erasure was not logged yet when the power went.
            app.keyring.erase_many([file.model.key_id])
        else:
            with app.database.write() as tx:
                tx.run("UPDATE jobs SET status = 'failed', finished_at = 1 WHERE n = :n", n=job.n)
            world.delete(start.owner, file)
        _restore(world)
        found = jobs.find(world.app.database, start.owner, job.id)
        assert found is not None
        assert found.status is Status.CANCELLED
