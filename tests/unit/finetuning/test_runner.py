"""The runner of fine-tuning jobs, with the trainer's stand-in."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import jobs, servers
from tests.support.jobs import Workplace

from tunewarden import app as composition
from tunewarden.finetuning import commands
from tunewarden.finetuning.jobs import Job
from tunewarden.finetuning.states import State, Status
from tunewarden.finetuning.trainer_process import NICENESS
from tunewarden.locks import ByteLocks
from tunewarden.registry import artifacts
from tunewarden.registry.drafts import DraftKind
from tunewarden.registry.file_rows import File
from tunewarden.registry.files import Files


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    made = Workplace(tmp_path)
    yield made
    assert made.remnants() == []


def test_a_job_becomes_a_model_with_checkpoints_and_results(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, truncated_lines=[3, 7])
    job = place.job(suffix="mine")
    with place.running():
        done = place.finished(job)
    assert done.status is Status.SUCCEEDED
    assert place.models_of(job) == [3, 6, None]
    assert (done.trained_tokens, done.error, done.state_blobs) == (123, None, None)
    assert done.hyperparameters == {
        "n_epochs": 2,
        "batch_size": 1,
        "learning_rate_multiplier": 1.0,
    }
    said = place.events(job)
    assert said[2:4] == ["Files validated, moving job to queued state", "Fine-tuning job started"]
    assert said[4].startswith("2 examples of the training file exceed the context length")
    assert "line 3, 7." in said[4]
    assert "Step 1/6: training loss=1.00" in said
    assert "Checkpoint created at step 3" in said
    assert said[-2].startswith("New fine-tuned model created: ft:tiny-base:my-org:mine:")
    assert said[-1] == "The job has successfully completed"
    with place.app.database.read() as tx:
        [(purpose, size)] = tx.rows(
            "SELECT f.purpose, f.bytes FROM files f JOIN jobs j ON j.result_n = f.n"
        )
        assert tx.rows("SELECT step FROM job_checkpoints ORDER BY n") == [(3,), (6,)]
    assert (purpose, size) == ("fine-tune-results", 22)


def test_a_trainer_leaves_the_processors_to_others_and_keeps_its_jobs_lock(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, steps=10_000, checkpoints=[])
    job = place.job()
    with place.running():
        servers.wait_until(lambda: place.now(job).state_blobs, "it trains")
        [trainer] = _trainers()
        assert os.getpriority(os.PRIO_PROCESS, trainer) == NICENESS
        held = {str(one.readlink()) for one in Path(f"/proc/{trainer}/fd").iterdir()}
        assert str(place.config.run / "jobs.locks") in held
        commands.cancel(place.app.database, place.app.clock, place.caller, job.id)


def test_a_file_that_is_damaged_is_never_trained_on_in_part(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch)
    job = place.job(place.file(jobs.chats(4000)))
    place.validated(job)
    with place.app.database.read() as tx:
        [blob] = artifacts.blobs_of(tx, job.training_n)
    with (place.config.blobs / blob.name).open("r+b") as sealed:
        sealed.seek(-100, os.SEEK_END)
        sealed.write(b"damaged")
    with place.running():
        done = place.finished(job)
    assert done.status is Status.FAILED
    assert (done.error or {})["code"] != "trainer_died"
    assert place.models_of(job) == []


def test_a_start_erases_the_states_of_jobs_that_are_over_and_of_none_else(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, steps=40, checkpoints=[])
    job = place.job()
    with place.running():
        servers.wait_until(lambda: place.now(job).state_blobs, "a state is saved")
    place.app.drafts.create(DraftKind.JOB, place.now(job).project_id)
    assert composition.saved_states(place.app).sweep() == 1
    with place.running():
        done = place.finished(job)
    assert done.status is Status.SUCCEEDED
    assert any("goes on from its state" in said for said in place.events(job))


def test_a_job_whose_saved_state_is_lost_begins_anew(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, steps=40, checkpoints=[3])
    job = place.job()
    with place.running():
        servers.wait_until(lambda: place.now(job).state_blobs, "a state is saved")
    place.app.keyring.erase(place.app.drafts.open(job.internal_id).key_id)
    with place.running():
        assert place.finished(job).status is Status.SUCCEEDED
    assert "Fine-tuning job goes on from the beginning" in place.events(job)
    assert place.models_of(job) == [3, None]


def test_training_goes_on_from_a_model(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.use_fake_trainer(monkeypatch)
    first = place.job()
    with place.running():
        place.finished(first)
        with place.app.database.read() as tx:
            [(model,)] = tx.rows("SELECT a.id FROM artifacts a JOIN jobs j ON j.model_n = a.n")
        second = place.job(model=model)
        assert place.finished(second).status is Status.SUCCEEDED


def test_a_file_that_cannot_be_trained_on_ends_the_job(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch)
    few, bad = place.job(place.file(jobs.chats(1))), place.job(place.file(jobs.chats() + b"{}\n"))
    checked = place.job(validation_file=place.file(jobs.chats() + b"{}\n"))
    with place.running():
        place.finished(few, bad, checked)
    found = [place.now(job) for job in (few, bad, checked)]
    assert [job.status for job in found] == [Status.FAILED] * 3
    assert [(job.error or {})["param"] for job in found] == [
        "training_file",
        "training_file",
        "validation_file",
    ]
    assert [(job.error or {})["code"] for job in found] == [
        "invalid_n_examples",
        "invalid_training_file",
        "invalid_validation_file",
    ]


def test_a_killed_trainer_is_succeeded_by_one_that_goes_on_from_the_last_state(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, dies_before=5, dies_in_first_life_only=True)
    job = place.job()
    with place.running():
        done = place.finished(job)
    assert done.status is Status.SUCCEEDED
    assert place.models_of(job) == [3, 6, None]
    assert "Fine-tuning job goes on from its state at step 4" in place.events(job)
    assert place.events(job).count("Checkpoint created at step 3") == 1


def test_a_checkpoint_that_is_handed_over_again_makes_no_second_model(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It dies between the checkpoint of step 3 and the state of step 4, every time.
    jobs.use_fake_trainer(monkeypatch, dies_before=4)
    job = place.job()
    with place.running():
        done = place.finished(job)
    assert done.status is Status.FAILED
    assert place.models_of(job) == [3]


def test_a_trainer_that_is_always_killed_ends_the_job_with_advice(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, dies_before=2)
    job = place.job()
    with place.running():
        done = place.finished(job)
    assert done.status is Status.FAILED
    assert done.error is not None
    assert done.error["code"] == "trainer_died"
    assert "memory" in done.error["message"]
    assert place.events(job)[-1].startswith("The job failed: The trainer was killed 3 times")


def test_the_last_words_of_a_trainer_are_in_the_log(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.use_fake_trainer(monkeypatch, exit_status=3)
    job = place.job()
    with place.running():
        done = place.finished(job)
    assert done.error is not None
    assert "ended with status 3, 3 times" in done.error["message"]
    assert "the last words of the fake" in caplog.text


def test_what_the_trainer_says_of_a_failure_is_the_jobs_error(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"code": "nan_loss", "message": "The loss is NaN.", "param": "hyperparameters"}
    jobs.use_fake_trainer(monkeypatch, fails=list(told.values()))
    job = place.job()
    with place.running():
        assert place.finished(job).error == told


def test_an_adapter_that_could_not_be_served_ends_the_job(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, bad_adapter=True)
    job = place.job()
    with place.running():
        done = place.finished(job)
    assert (done.error or {})["code"] == "invalid_adapter"
    assert place.models_of(job) == []


def test_a_cancelled_job_leaves_no_trainer_and_no_state(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, steps=10_000, checkpoints=[])
    job = place.job()
    with place.running():
        servers.wait_until(lambda: place.now(job).state_blobs, "a state is saved")
        named = commands.cancel(place.app.database, place.app.clock, place.caller, job.id)
        assert named.job.finished_at is not None
        assert _trainers() == []
    assert place.now(job).status is Status.CANCELLED
    assert place.models_of(job) == []


def test_a_paused_job_holds_no_trainer_and_goes_on_when_it_is_resumed(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, steps=40, checkpoints=[])
    job = place.job()
    database, clock = place.app.database, place.app.clock
    with place.running():
        servers.wait_until(lambda: place.now(job).state_blobs, "a state is saved")
        paused = commands.pause(database, clock, place.caller, job.id).job
        assert paused.state is State.PAUSED
        servers.wait_until(lambda: _trainers() == [], "the trainer is gone")
        assert place.events(job)[-1] == "Fine-tuning job paused"
        commands.resume(database, place.caller, job.id)
        assert place.finished(job).status is Status.SUCCEEDED
    assert any("goes on from its state at step" in said for said in place.events(job))


def test_a_trainer_that_does_not_pause_in_time_is_killed(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, steps=10_000, checkpoints=[], ignores_pause=True)
    monkeypatch.setattr("tunewarden.finetuning.training.PAUSE_SECONDS", 0.3)
    job = place.job()
    database, clock = place.app.database, place.app.clock
    with place.running():
        servers.wait_until(lambda: place.now(job).state_blobs, "a state is saved")
        assert commands.pause(database, clock, place.caller, job.id).job.state is State.PAUSED
        servers.wait_until(lambda: _trainers() == [], "the trainer is gone")
        commands.cancel(database, clock, place.caller, job.id)


def test_a_stopped_runner_leaves_a_job_that_the_next_one_goes_on_with(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, steps=60, state_each=1000, checkpoints=[])
    job = place.job()
    with place.running():
        servers.wait_until(lambda: len(place.events(job)) > 5, "it trains")
    stopped = place.now(job)
    assert stopped.status is Status.RUNNING
    assert stopped.state_blobs, "the trainer was asked for its state"
    assert _trainers() == []
    with place.running():
        assert place.finished(job).status is Status.SUCCEEDED
    assert place.models_of(job) == [None]


def test_a_job_that_another_process_works_on_is_left_alone(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch)
    job = place.job()
    other = ByteLocks(place.config.run / "jobs.locks")
    assert other.try_exclusive(job.n)
    with place.running():
        with pytest.raises(AssertionError, match="finished"):
            place.finished(job, seconds=0.5)
        assert place.now(job).status is Status.VALIDATING_FILES
        other.close()
        assert place.finished(job).status is Status.SUCCEEDED


def test_a_job_whose_base_was_moved_away_says_so(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch)
    job = place.job()
    with place.app.database.write() as tx:
        tx.run("UPDATE bases SET location = '/nowhere'")
    with place.running():
        done = place.finished(job)
    assert (done.error or {})["code"] == "base_not_found"


def test_a_job_whose_file_a_restored_database_brought_back_without_its_key_says_so(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch)
    job = place.job()
    with place.app.database.write() as tx:
        tx.run("UPDATE artifacts SET state = 'deleting' WHERE n = :n", n=job.training_n)
    with place.running():
        done = place.finished(job)
    with place.app.database.write() as tx:
        tx.run("UPDATE artifacts SET state = 'active' WHERE n = :n", n=job.training_n)
    assert (done.error or {})["code"] == "file_not_found"


def test_a_mistake_of_ours_ends_one_job_and_no_other(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.use_fake_trainer(monkeypatch)
    monkeypatch.setattr("tunewarden.finetuning.runner.RETRY_SECONDS", 0.05)
    wrong, right = place.job(), place.job()
    with place.app.database.write() as tx:
        tx.run("UPDATE jobs SET hyperparameters = '{\"nonsense\": 1}' WHERE n = :n", n=wrong.n)
    with place.running():
        done = place.finished(wrong, right)
    assert (done.error or {})["code"] == "server_error"
    assert place.now(right).status is Status.SUCCEEDED
    assert "nonsense" in caplog.text


def test_a_mistake_while_a_trainer_is_fed_is_logged_and_not_printed(
    place: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken(_files: Files, _file: File) -> Iterator[bytes]:
        yield b""
        raise RuntimeError("what a client wrote")

    jobs.use_fake_trainer(monkeypatch)
    monkeypatch.setattr("tunewarden.finetuning.runner.RETRY_SECONDS", 0.05)
    monkeypatch.setattr(Files, "content", broken)
    job = place.job()
    place.validated(job)
    with place.running():
        done = place.finished(job)
    assert done.status is Status.FAILED
    assert "a file could not be read for a trainer" in caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_jobs_of_many_projects_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Workplace(tmp_path, training_jobs_max=1)
    jobs.use_fake_trainer(monkeypatch, steps=1, checkpoints=[])
    first, second = place.project("proj_a"), place.project("proj_b")
    made = [place.job(caller=first) for _ in range(3)] + [place.job(caller=second)]
    place.validated(*made)
    with place.running():
        place.finished(*made)
    started = sorted(made, key=lambda job: place.now(job).started_at or 0)
    assert started.index(made[3]) <= 1
    assert place.remnants() == []


@pytest.mark.long
def test_a_trainer_that_somebody_kills_is_started_again(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.use_fake_trainer(monkeypatch, steps=80, checkpoints=[])
    job = place.job()
    with place.running():
        for _ in range(4):
            saved = place.now(job).state_blobs
            servers.wait_until(_has_new_state(place, job, saved), "there is progress")
            for pid in _trainers():
                os.kill(pid, signal.SIGKILL)
        assert place.finished(job).status is Status.SUCCEEDED


def _has_new_state(place: Workplace, job: Job, saved: object) -> Callable[[], bool]:
    return lambda: place.now(job).state_blobs != saved


def _trainers() -> list[int]:
    """The trainers' stand-ins that this process has."""
    found = []
    for pid in servers.descendants(os.getpid()):
        try:
            if b"fake_trainer" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found
