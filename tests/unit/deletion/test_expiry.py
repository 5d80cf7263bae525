"""What goes by itself goes in time, once, and never from under a job."""

from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from tests.fakes.clock import START, HandClock
from tests.support import fine_tuning_rows, servers

from tunewarden import app as composition
from tunewarden.app import App
from tunewarden.clock import to_micros
from tunewarden.deletion.recovery import HighWaterMark
from tunewarden.deletion.retention import expiry_pause
from tunewarden.deletion.retention.expiry import Expiry
from tunewarden.deletion.retention.expiry_pause import ClockWatch
from tunewarden.finetuning import jobs
from tunewarden.finetuning.states import State
from tunewarden.registry import file_rows
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.file_rows import File
from tunewarden.registry.files import Owner
from tunewarden.registry.holds import Holds


def _prepared(data: Path) -> tuple[App, Owner, str]:
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    key = (data / "owner.key").read_text().strip()
    caller = fine_tuning_rows.caller_of(app, key)
    return app, Owner(caller.organization_id, caller.project_id, caller.key_id), key


def _file(app: App, owner: Owner, *, expires_at: int | None) -> File:
    file = app.files.store(owner, filename="a.txt", purpose="user_data", reader=BytesIO(b"x"))
    with app.database.write() as tx:
        tx.run("UPDATE files SET expires_at = :at WHERE n = :n", at=expires_at, n=file.n)
    return file


def test_only_what_is_due_goes_and_only_once(data: Path) -> None:
    app, owner, _ = _prepared(data)
    due = [_file(app, owner, expires_at=at) for at in (1, 2)]
    kept = [_file(app, owner, expires_at=at) for at in (None, 2**60)]
    expiry = composition.expiry(app)
    assert expiry.run() == 2
    assert expiry.run() == 0, "they are being deleted already"
    assert app.executor.resume() == 0
    assert expiry.run() == 0
    assert [file_rows.of_number(app.database, file.n) is None for file in (*due, *kept)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not any(app.keyring.contains(file.key_id) for file in due)
    with app.database.read() as tx:
        details = tx.rows("SELECT details FROM audit_events WHERE type = 'deletion.requested'")
    assert all("it has expired" in row[0] for row in details)
    assert len(details) == 2


class JumpingClock(HandClock):
    """A clock whose wall time can be set without time passing."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


def _watched(app: App, clock: JumpingClock) -> Expiry:
    """What a runner that starts now works with."""
    size = app.open_log()[0].size
    mark = HighWaterMark(app.config.keyring / "time.mark")
    return Expiry(app.database, app.uploads, size, ClockWatch(app.database, clock, mark))


@pytest.mark.parametrize(("hours", "goes"), [(23, True), (25, False), (24 * 365, False)])
def test_nothing_expires_after_the_clock_jumped(data: Path, hours: int, goes: bool) -> None:
    app, owner, _ = _prepared(data)
    clock = JumpingClock()
    due_at = to_micros(START + timedelta(hours=2))
    file = _file(app, owner, expires_at=due_at)
    expiry = _watched(app, clock)
    assert expiry.run() == 0, "it is not due yet"
    clock.ahead = timedelta(hours=hours)
    assert expiry.run() == goes
    assert (file_rows.of_number(app.database, file.n) is None) == goes
    assert (expiry_pause.pause_of(app.database) is None) == goes


def test_small_jumps_add_up(data: Path) -> None:
    app, _, _ = _prepared(data)
    clock = JumpingClock()
    expiry = _watched(app, clock)
    for _ in range(5):
        expiry.run()
        clock.ahead += timedelta(hours=10)
    assert expiry_pause.pause_of(app.database) is not None


def test_time_that_passes_is_no_jump(data: Path) -> None:
    app, owner, _ = _prepared(data)
    clock = JumpingClock()
    _file(app, owner, expires_at=to_micros(START + timedelta(days=20)))
    expiry = _watched(app, clock)
    expiry.run()
    clock.sleep(21 * 24 * 3600.0)  # the machine was suspended
    assert expiry.run() == 1


@pytest.mark.parametrize(("days", "goes"), [(0.9, True), (2.0, False)])
def test_a_start_long_after_the_last_note_pauses_until_it_is_resumed(
    data: Path, days: float, goes: bool
) -> None:
    """A restored database, a server that was off, a clock set while it was: all look like this."""
    app, owner, _ = _prepared(data)
    clock = JumpingClock()
    file = _file(app, owner, expires_at=to_micros(START))
    with app.database.write() as tx:
        noted = to_micros(START - timedelta(days=days))
        tx.run("INSERT INTO clock_seen VALUES (1, :at, NULL, 0, :at)", at=noted)
    assert _watched(app, clock).run() == goes
    if goes:
        return
    expiry = _watched(app, clock)
    assert expiry.run() == 0, "another start changes nothing"
    assert expiry_pause.resume(app.database, clock)
    assert not expiry_pause.resume(app.database, clock)
    assert expiry.run() == 1
    assert file_rows.of_number(app.database, file.n) is None


def test_a_file_that_a_job_reads_goes_when_the_job_has_ended(data: Path) -> None:
    app, _, key = _prepared(data)
    job_id = fine_tuning_rows.make_job(app, key)
    with app.database.write() as tx:
        n = jobs.by_n(tx, fine_tuning_rows.job_n(app, job_id)).training_n
        tx.run("UPDATE files SET expires_at = 1 WHERE n = :n", n=n)
    expiry = composition.expiry(app)
    assert expiry.run() == 0
    assert file_rows.of_number(app.database, n) is not None
    fine_tuning_rows.set_job(app, job_id, state=State.SUCCEEDED)
    assert expiry.run() == 1
    assert file_rows.of_number(app.database, n) is None


def test_a_file_on_hold_goes_when_the_hold_is_lifted(data: Path) -> None:
    app, owner, key = _prepared(data)
    caller = fine_tuning_rows.caller_of(app, key)
    file = _file(app, owner, expires_at=1)
    holds = Holds(app.database, app.keyring)
    hold = holds.place(caller, ArtifactKind.FILE, file.id, "a dispute")
    expiry = composition.expiry(app)
    assert expiry.run() == 0
    assert file_rows.of_number(app.database, file.n) is not None
    holds.lift(caller, hold.id)
    assert expiry.run() == 1
    assert file_rows.of_number(app.database, file.n) is None


def test_a_file_of_the_server_itself_is_stored_with_what_belongs_to_it_or_not_at_all(
    data: Path,
) -> None:
    app, owner, _ = _prepared(data)
    seen: list[str] = []
    made = app.files.store(
        owner,
        filename="step_metrics.csv",
        purpose="fine-tune-results",
        reader=BytesIO(b"step\n1\n"),
        within=lambda tx, file: seen.append(f"{file.id} {tx.row('SELECT COUNT(*) FROM files')}"),
    )
    assert seen == [f"{made.id} (1,)"], "inside the transaction, with the file's row"
    assert b"".join(app.files.content(made)) == b"step\n1\n"
    blobs, keys = app.blobs.names(""), _keys(app)

    def fails(*_: object) -> None:
        raise RuntimeError("the job is not there any more")

    with pytest.raises(RuntimeError, match="not there any more"):
        app.files.store(
            owner, filename="b.csv", purpose="fine-tune-results", reader=BytesIO(b"x"), within=fails
        )
    assert (app.blobs.names(""), _keys(app)) == (blobs, keys)
    assert app.database.peek("SELECT COUNT(*) FROM files") == (1,)
    assert app.database.peek("SELECT COUNT(*) FROM drafts") == (0,)


def _keys(app: App) -> list[str]:
    return [one for shard in app.keyring.shards() for one in app.keyring.key_ids(shard)]
