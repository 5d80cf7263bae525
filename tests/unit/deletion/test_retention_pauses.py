"""After a restore, a replay or a jump of the clock rules only preview, until an Owner resumes."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.fakes.clock import START, HandClock
from tests.support import fine_tuning_rows, servers
from tests.support.bulk import make_older

from tunewarden.app import App, open_app
from tunewarden.clock import to_micros
from tunewarden.config import Config
from tunewarden.deletion.bulk.results import Outcome, Result
from tunewarden.deletion.recovery import HighWaterMark
from tunewarden.deletion.requests import Attempt
from tunewarden.deletion.retention import expiry_pause
from tunewarden.deletion.retention.expiry_pause import ClockWatch
from tunewarden.deletion.retention.retention_runs import Retention
from tunewarden.errors import Error
from tunewarden.identity.policy import Caller
from tunewarden.recovery_at_start import recover
from tunewarden.registry import retention_pause
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.criteria import Criteria
from tunewarden.registry.retention_pause import PauseReason
from tunewarden.registry.retention_rules import RetentionRules, Rule, RuleAction, Terms


class JumpingClock(HandClock):
    """A clock whose wall time can be set without time passing; it starts now, as the database's does."""

    def __init__(self, first: datetime) -> None:
        super().__init__()
        self.ahead = first - START

    def now(self) -> datetime:
        return super().now() + self.ahead


class Machine:
    """A data directory with an enabled rule and an old model, and what its runner does each second."""

    def __init__(self, data: Path) -> None:
        servers.prepare_local_base(data)
        self.data = data
        self.app = open_app(Config(data=data, scratch_may_be_a_disk=True))
        key = (data / "owner.key").read_text().strip()
        self.owner: Caller = fine_tuning_rows.caller_of(self.app, key)
        self.model = servers.import_adapter(self.app, key).id
        make_older(self.app, self.model, 100)
        self.clock = JumpingClock(self.app.clock.now())
        self.rule = self._rule(self.app)
        self.start()

    def _rule(self, app: App) -> Rule:
        terms = Terms(
            criteria=Criteria(older_than_days=90),
            action=RuleAction.DELETE,
            notice_days=0,
            is_enabled=True,
        )
        return RetentionRules(app.database).create(self.owner, terms)

    def start(self) -> None:
        """Start a runner."""
        mark = HighWaterMark(self.app.config.keyring / "time.mark")
        self.watch = ClockWatch(self.app.database, self.clock, mark)
        self.retention = Retention(self.app.database, self.clock, self.app.executor, mark)

    def reopen(self) -> None:
        """Start anew on what is on the disk."""
        self.app = open_app(Config(data=self.data, scratch_may_be_a_disk=True))
        recover(self.app)
        self.start()

    def tick(self) -> bool:
        """Do what the runner does; return whether the old model is still there."""
        now = self.watch.trusted_now()
        if now is not None:
            self.retention.run_due(now)
        return self.is_there()

    def is_there(self) -> bool:
        row = self.app.database.peek("SELECT state FROM artifacts WHERE id = :id", id=self.model)
        return row == ("active",)

    def pause(self) -> PauseReason | None:
        with self.app.database.read() as tx:
            found = retention_pause.of(tx, self.owner.organization_id)
        return None if found is None else found.reason

    def run_by_hand(self) -> str | None:
        """Run the rule as an Owner does; return the code of the refusal."""
        try:
            list(self.retention.run(self.owner, self.rule.id))
        except Error as refused:
            return refused.code
        return None


def test_control_without_any_of_that_the_rule_acts(data: Path) -> None:
    machine = Machine(data)
    assert not machine.tick()
    assert machine.pause() is None


@pytest.mark.parametrize("is_running", [True, False])
def test_a_jump_of_the_clock_pauses_until_the_operator_and_an_owner_resume(
    data: Path, is_running: bool
) -> None:
    machine = Machine(data)
    make_older(machine.app, machine.model, -100)
    assert machine.tick()
    machine.clock.ahead += timedelta(days=365)
    if not is_running:
        machine.start()
    assert machine.tick(), "it was deleted by a clock that jumped"
    assert machine.pause() is PauseReason.CLOCK
    assert machine.run_by_hand() == "retention_paused"
    with pytest.raises(Error, match="expiry resume"):
        machine.retention.resume(machine.owner)
    assert expiry_pause.resume(machine.app.database, machine.clock)
    assert machine.tick(), "the operator says that the clock is right, not that the rules may go on"
    assert machine.run_by_hand() == "retention_paused"
    assert machine.retention.resume(machine.owner)
    assert not machine.retention.resume(machine.owner)
    assert machine.run_by_hand() is None


@pytest.mark.parametrize("is_running", [True, False])
def test_what_was_made_by_a_clock_that_was_set_back_waits_until_both_have_looked(
    data: Path, is_running: bool
) -> None:
    machine = Machine(data)
    make_older(machine.app, machine.model, -100)
    machine.tick()
    machine.clock.ahead -= timedelta(days=400)
    if not is_running:
        machine.start()
    machine.tick()
    make_older(machine.app, machine.model, 400)  # as if it was made now
    machine.clock.ahead += timedelta(days=400)
    machine.start()
    machine.clock.sleep(2 * 3600.0)  # a rule runs each hour
    assert machine.tick(), "it was deleted by the date of a wrong clock"
    assert machine.pause() is PauseReason.CLOCK
    assert machine.run_by_hand() == "retention_paused"
    found = expiry_pause.pause_of(machine.app.database)
    assert found is not None
    assert found.jumped_micros < -399 * expiry_pause.JUMP_MICROS
    doctor = servers.run_cli("doctor", "--data", str(data))
    assert "the clock was set 400.0 days back" in doctor.stdout + doctor.stderr
    with pytest.raises(Error, match="expiry resume"):
        machine.retention.resume(machine.owner)
    assert expiry_pause.resume(machine.app.database, machine.clock)
    assert machine.tick(), "an Owner has not looked"
    assert machine.retention.resume(machine.owner)
    assert not machine.tick()


def test_a_first_rule_that_is_made_during_the_pause_waits_for_an_owner_too(data: Path) -> None:
    machine = Machine(data)
    make_older(machine.app, machine.model, -100)
    with machine.app.database.write() as tx:
        tx.run("DELETE FROM retention_pauses")  # as if it had no rules yet
    machine.tick()
    machine.clock.ahead -= timedelta(days=400)
    machine.tick()
    machine.clock.ahead += timedelta(days=400)
    make_older(machine.app, machine.model, 400)
    machine.rule = machine._rule(machine.app)
    assert expiry_pause.resume(machine.app.database, machine.clock)
    assert machine.tick()
    assert machine.pause() is PauseReason.CLOCK


def test_a_command_without_a_runner_says_that_the_clock_was_set_back(data: Path) -> None:
    machine = Machine(data)
    machine.clock.ahead += timedelta(hours=1)
    machine.tick()
    machine.clock.ahead -= timedelta(days=400)
    assert machine.run_by_hand() == "retention_paused"
    pause = machine.retention.pause_of(machine.owner)
    assert pause is not None
    assert pause.reason is PauseReason.CLOCK
    assert machine.pause() is None, "the runner pauses the rules, when it sees that"


def test_a_clock_that_was_ahead_and_is_right_again_can_be_resumed(data: Path) -> None:
    """The mark stays ahead: the database is no older copy for that, not now and not at the next start."""
    machine = Machine(data)
    make_older(machine.app, machine.model, -1000)
    machine.clock.ahead += timedelta(days=400)
    machine.tick()
    machine.clock.ahead -= timedelta(days=400)
    machine.tick()
    assert machine.pause() is PauseReason.CLOCK
    assert expiry_pause.resume(machine.app.database, machine.clock)
    assert machine.retention.resume(machine.owner)
    for _ in range(3):
        machine.start()
        machine.clock.sleep(3600.0)
        assert machine.tick()
        assert machine.pause() is None
        assert machine.run_by_hand() is None


def test_a_clock_that_is_corrected_by_hours_is_neither_a_jump_nor_a_restore(data: Path) -> None:
    machine = Machine(data)
    make_older(machine.app, machine.model, -100)
    machine.tick()
    machine.clock.ahead -= timedelta(hours=3)
    machine.tick()
    machine.start()
    assert machine.tick()
    assert machine.pause() is None
    assert machine.run_by_hand() is None


def test_a_restore_after_a_clock_was_set_back_is_still_seen(data: Path) -> None:
    machine = Machine(data)
    make_older(machine.app, machine.model, -100)
    machine.clock.ahead += timedelta(hours=20)
    machine.tick()
    machine.clock.ahead -= timedelta(hours=20)
    machine.tick()
    backup = data.parent / "backup.sqlite"
    machine.app.database.copy_to(backup)
    machine.clock.sleep(3600.0)
    machine.tick()
    del machine.app, machine.retention, machine.watch
    for path in data.glob("tunewarden.sqlite*"):
        if not path.name.endswith("-writers"):
            path.unlink()
    shutil.copy(backup, data / "tunewarden.sqlite")
    machine.reopen()
    machine.tick()
    assert machine.pause() is PauseReason.RESTORE


def test_a_command_without_a_runner_does_not_trust_a_clock_that_jumped(data: Path) -> None:
    machine = Machine(data)
    make_older(machine.app, machine.model, -100)
    machine.tick()
    machine.clock.ahead += timedelta(days=365)
    # No runner looked since: the request itself must.
    assert machine.run_by_hand() == "retention_paused"
    pause = machine.retention.pause_of(machine.owner)
    assert pause is not None
    assert pause.reason is PauseReason.CLOCK


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_database_that_is_older_than_what_was_noted_pauses(data: Path, by_hand: bool) -> None:
    """A hold that was placed after the backup is not known any more: nothing is deleted until somebody looked."""
    machine = Machine(data)
    make_older(machine.app, machine.model, -100)
    machine.tick()
    backup = data.parent / "backup.sqlite"
    machine.app.database.copy_to(backup)
    machine.clock.sleep(3600.0)
    machine.tick()
    del machine.app, machine.retention, machine.watch
    for path in data.glob("tunewarden.sqlite*"):
        if not path.name.endswith("-writers"):
            path.unlink()
    shutil.copy(backup, data / "tunewarden.sqlite")
    machine.reopen()
    make_older(machine.app, machine.model, 100)
    if by_hand:
        assert machine.run_by_hand() == "retention_paused"
    assert machine.tick()
    assert machine.pause() is PauseReason.RESTORE
    assert machine.run_by_hand() == "retention_paused"
    previewed = list(machine.retention.preview(machine.owner, machine.rule.id))
    assert isinstance(previewed[0], Result)
    assert previewed[0].outcome is Outcome.DELETE
    assert machine.retention.resume(machine.owner)
    machine.start()
    machine.clock.sleep(2 * 3600.0)  # a rule runs each hour
    assert not machine.tick(), "an Owner has looked: the same copy pauses once"


def test_a_deletion_that_is_replayed_from_the_log_pauses(data: Path) -> None:
    machine = Machine(data)
    other = servers.import_adapter(machine.app, (data / "owner.key").read_text().strip()).id
    backup = data.parent / "backup.sqlite"
    machine.app.database.copy_to(backup)
    machine.app.executor.delete(machine.owner, ArtifactKind.MODEL, other, Attempt())
    del machine.app, machine.retention, machine.watch
    for path in data.glob("tunewarden.sqlite*"):
        if not path.name.endswith("-writers"):
            path.unlink()
    shutil.copy(backup, data / "tunewarden.sqlite")
    machine.reopen()
    assert machine.pause() is PauseReason.REPLAY
    assert machine.tick()
    assert machine.run_by_hand() == "retention_paused"


@pytest.mark.parametrize("reason", PauseReason)
def test_after_a_restore_organizations_without_rules_are_paused_too(
    data: Path, reason: PauseReason
) -> None:
    machine = Machine(data)
    with machine.app.database.write() as tx:
        tx.run("DELETE FROM retention_pauses")  # as in a copy of before the first rule
        retention_pause.pause_all(tx, reason)
    expected = None if reason is PauseReason.CLOCK else reason
    assert machine.pause() is expected
    assert (machine.run_by_hand() == "retention_paused") is (expected is not None)


def test_a_crash_and_a_start_are_no_restore(data: Path) -> None:
    machine = Machine(data)
    make_older(machine.app, machine.model, -100)
    for _ in range(5):
        machine.clock.sleep(3600.0)
        machine.tick()
        machine.reopen()
    assert machine.pause() is None
    assert to_micros(machine.clock.now()) > 0


def test_a_pause_in_the_middle_of_a_run_ends_it(data: Path) -> None:
    machine = Machine(data)
    key = (data / "owner.key").read_text().strip()
    models = [servers.import_adapter(machine.app, key).id for _ in range(70)]
    for model in models:
        make_older(machine.app, model, 100)
    results = machine.retention.run(machine.owner, machine.rule.id)
    assert isinstance(next(results), Result)
    with machine.app.database.write() as tx:
        retention_pause.pause_all(tx, PauseReason.RESTORE)
    *done, summary = results
    assert len(done) < 40
    assert not isinstance(summary, Result)
    assert summary.stopped is not None
    assert summary.stopped.code == "retention_paused"
    left = machine.app.database.peek("SELECT COUNT(*) FROM artifacts WHERE state = 'active'")
    assert left is not None
    assert left[0] > 30
