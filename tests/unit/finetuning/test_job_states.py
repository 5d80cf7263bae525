"""The tables at the top of `finetuning/states.py`, held against what the operations do to a job in each state."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.clock import HandClock
from tests.support import fine_tuning_rows as rows
from tests.support import servers
from tests.support.state_tables import transitions

from tunewarden.app import App
from tunewarden.db.database import Tx
from tunewarden.errors import Error
from tunewarden.finetuning import commands, jobs, states
from tunewarden.finetuning import transitions as operations
from tunewarden.finetuning.jobs import Job
from tunewarden.finetuning.states import TRANSITIONS, Event, State
from tunewarden.identity.policy import Caller


class _Jobs:
    """A data directory in which jobs are made and brought into any state by what does so in the product."""

    def __init__(self, data: Path) -> None:
        servers.prepare_local_base(data)
        self.app: App = servers.open_data(data)
        self.key = (data / "owner.key").read_text().strip()
        self.caller: Caller = rows.caller_of(self.app, self.key)
        self.model = servers.import_adapter(self.app, self.key)
        self.result_n = self._job().training_n

    def _job(self) -> Job:
        return self.read(rows.job_n(self.app, rows.make_job(self.app, self.key)))

    def read(self, n: int) -> Job:
        with self.app.database.read() as tx:
            return jobs.by_n(tx, n)

    def after(self, events: tuple[Event, ...]) -> Job:
        """Return a new job to which these have happened."""
        job = self._job()
        for event in events:
            self.happens(job, event)
        return self.read(job.n)

    def happens(self, job: Job, event: Event) -> bool:
        """Let something happen; return whether the operation did it."""
        database, clock = self.app.database, HandClock()
        asked: dict[Event, Callable[[], object]] = {
            Event.PAUSE: lambda: commands.pause(database, clock, self.caller, job.id),
            Event.RESUME: lambda: commands.resume(database, self.caller, job.id),
            Event.CANCEL: lambda: commands.cancel(database, clock, self.caller, job.id),
        }
        done: dict[Event, Callable[[Tx], bool]] = {
            Event.VALIDATED: lambda tx: operations.validated(tx, job),
            Event.STARTED: lambda tx: operations.started(tx, job),
            Event.PAUSED: lambda tx: operations.paused(tx, job.n),
            Event.SUCCEEDED: lambda tx: operations.succeeded(
                tx,
                job,
                model_n=self.model.n,
                model_id=self.model.id,
                result_n=self.result_n,
                trained_tokens=1,
            ),
            Event.FAILED: lambda tx: operations.failed(
                tx, job.n, code="c", message="m", param=None
            ),
            Event.FINISHED: lambda tx: operations.finished(tx, job.n),
        }
        if event in asked:
            try:
                asked[event]()
            except Error:
                return False
            return True
        with database.write() as tx:
            return done[event](tx)


@pytest.mark.long
def test_operations_move_a_job_from_state_to_state_as_the_table_says(data: Path) -> None:
    place = _Jobs(data)
    paths: dict[State, tuple[Event, ...]] = {State.VALIDATING: ()}
    seen: dict[tuple[State, Event], State] = {}
    todo = deque([State.VALIDATING])
    while todo:
        before = todo.popleft()
        for event in Event:
            job = place.after(paths[before])
            assert job.state is before
            is_done = place.happens(job, event)
            after = place.read(job.n).state
            if is_done:
                seen[before, event] = after
            else:
                assert after is before
            if after not in paths:
                paths[after] = (*paths[before], event)
                todo.append(after)
    assert set(paths) == set(State)
    assert seen == TRANSITIONS
    assert transitions(states, State) == {
        (before.name, f"`{event.name}`", after.name)
        for (before, event), after in TRANSITIONS.items()
    }


@pytest.mark.parametrize("status", sorted(states.ENDED))
def test_what_an_older_server_left_in_the_row_of_an_ended_job_says_nothing(status: str) -> None:
    """It let a job that was paused fail without a change of `is_paused`."""
    assert states.stored(status, 1, None, 7) is states.stored(status, 0, None, 7)
    assert states.stored(status, 1, None, 7) not in states.PAUSED
