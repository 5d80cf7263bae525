"""What goes by itself goes in time, once, and never from under a job."""

from io import BytesIO
from pathlib import Path

import pytest
from tests import fine_tuning_rows, servers

from tunewarden import app as composition
from tunewarden.app import App
from tunewarden.registry import files
from tunewarden.registry.files import File, Owner


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
    assert [files.of_number(app.database, file.n) is None for file in (*due, *kept)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not any(app.keyring.contains(file.key_id) for file in due)
    with app.database.read() as tx:
        details = tx.rows("SELECT details FROM audit_events WHERE type = 'deletion.requested'")
    assert all("it has expired" in row[0] for row in details)
    assert len(details) == 2


def test_a_file_that_a_job_reads_goes_when_the_job_has_ended(data: Path) -> None:
    app, _, key = _prepared(data)
    job_id = fine_tuning_rows.make_job(app, key)
    row = app.database.peek("SELECT training_n FROM jobs WHERE id = :id", id=job_id)
    assert row is not None
    with app.database.write() as tx:
        tx.run("UPDATE files SET expires_at = 1 WHERE n = :n", n=row[0])
    expiry = composition.expiry(app)
    assert expiry.run() == 0
    assert files.of_number(app.database, row[0]) is not None
    fine_tuning_rows.set_job(app, job_id, status="succeeded", finished_at=1)
    assert expiry.run() == 1
    assert files.of_number(app.database, row[0]) is None


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
