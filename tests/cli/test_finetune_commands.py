"""Files and fine-tuning jobs on the command line. The trainer is the stand-in, all else is real."""

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests import fine_tuning_rows, servers
from tests.chaos.fake_engine_server import FakeEngineServer
from tests.cli import terminal
from tests.fakes.clock import HandClock
from tests.jobs import chats
from tests.servers import LOCAL_BASE, Server, run_cli

from tunewarden.cli import following, job_doors, local_files
from tunewarden.cli.doors import HttpDoor
from tunewarden.errors import Error, Kind

STEPS = 12
ESCAPE = "\x1b"
CLI = subprocess.CompletedProcess[str]


class FakeTrainerServer(FakeEngineServer):
    """Everything real but the engine and the trainers: these take two seconds for a job."""

    program: ClassVar[str] = "tests.fakes.with_fake_trainer"
    careless: ClassVar[dict[str, str]] = {
        "FAKE_TRAINER": json.dumps(
            {"steps": STEPS, "step_seconds": 0.15, "checkpoints": [6, STEPS], "state_each": 6}
        )
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that trains, shared by this module."""
    data = tmp_path_factory.mktemp("trained") / "data"
    servers.prepare_local_base(data)
    server = FakeTrainerServer(data, workers=1, settings={"training_jobs_max": 4})
    try:
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def training(tmp_path: Path) -> str:
    return _written(tmp_path, chats(12))


def _written(directory: Path, content: bytes, name: str = "chats.jsonl") -> str:
    path = directory / name
    path.write_bytes(content)
    return str(path)


def _create(server: Server, *arguments: str) -> CLI:
    return server.cli("finetune", "create", "--model", LOCAL_BASE, *arguments)


def _job(server: Server, *arguments: str) -> str:
    made = _create(server, *arguments)
    assert made.returncode == 0, made.stderr
    return made.stdout.removesuffix("\n")


def _paused(server: Server, training: str) -> str:
    """A job that was paused before it could get far."""
    client = server.client()
    file = client.files.create(file=Path(training), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=LOCAL_BASE, training_file=file.id)
    client.fine_tuning.jobs.pause(job.id)
    return job.id


def _over_http(server: Server) -> dict[str, str]:
    return {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": server.owner_key}


def _uploaded(server: Server) -> int:
    """How many files were uploaded: jobs of other tests may add result files at any time."""
    return len(server.client().files.list(purpose="fine-tune").data)


def _status(server: Server, job: str) -> str:
    return server.client().fine_tuning.jobs.retrieve(job).status


# Creating


def test_a_job_is_made_from_a_local_file_and_its_id_stands_alone(
    trained: Server, training: str
) -> None:
    made = _create(trained, "--file", training, "--suffix", "mine", "--epochs", "2")
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"ftjob-\w+\n", made.stdout)
    assert re.fullmatch(r"chats\.jsonl: 12 examples, file-\w+\n", made.stderr)
    job = trained.client().fine_tuning.jobs.retrieve(made.stdout.strip())
    assert (job.model, job.user_provided_suffix) == (LOCAL_BASE, "mine")  # type: ignore[attr-defined]
    assert trained.client().files.content(job.training_file).read() == chats(12)


@pytest.mark.parametrize("door", ["data", "http"])
def test_following_ends_with_the_job_and_tells_its_model(
    trained: Server, training: str, door: str
) -> None:
    command = ("finetune", "create", "--model", LOCAL_BASE, "--file", training, "-f")
    if door == "data":
        made = trained.cli(*command)
    else:
        made = run_cli(*command, settings=_over_http(trained))
    assert made.returncode == 0, made.stderr
    job = made.stdout.removesuffix("\n")
    assert _status(trained, job) == "succeeded"
    lines = made.stderr.splitlines()
    assert "Created fine-tuning job" in lines[1], "oldest first"
    assert any(f"Step {STEPS}/{STEPS}: training loss=" in line for line in lines)
    assert lines[-1].startswith(f"Succeeded: ft:{LOCAL_BASE}:")
    assert ESCAPE not in made.stderr
    assert "\r" not in made.stderr


def test_every_choice_arrives_at_the_server_by_either_door(trained: Server, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hello"}]
    answers = ({"role": "assistant", "content": text} for text in ("Good", "Bad"))
    good, bad = ([answer] for answer in answers)
    pair = {"input": {"messages": turns}, "preferred_output": good, "non_preferred_output": bad}
    line = (json.dumps(pair) + "\n").encode()
    choices = (
        *("--file", _written(tmp_path, line * 10)),
        *("--validation", _written(tmp_path, line, "validation.jsonl")),
        *("--method", "dpo", "--epochs", "3", "--batch-size", "2", "--beta", "0.25"),
        *("--learning-rate-multiplier", "1.5", "--seed", "7", "--suffix", "all"),
    )
    made = run_cli(
        *("finetune", "create", "--model", LOCAL_BASE, *choices), settings=_over_http(trained)
    )
    assert made.returncode == 0, made.stderr
    for job in (made.stdout.strip(), _job(trained, *choices)):
        row = trained.app.database.peek(
            "SELECT seed, suffix, method, validation_n FROM jobs WHERE id = :id", id=job
        )
        assert row is not None
        assert row[:3] == (7, "all", "dpo")
        assert row[3] is not None
    assert made.stderr.count("examples") == 2


def test_an_uploaded_file_may_be_named_by_its_id(trained: Server, training: str) -> None:
    uploaded = trained.cli("files", "upload", training)
    assert re.fullmatch(r"file-\w+\n", uploaded.stdout), uploaded.stderr
    made = _create(trained, "--file", uploaded.stdout.strip())
    assert (made.returncode, made.stderr) == (0, "")
    unknown = _create(trained, "--file", "file-nobody")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "The file 'file-nobody' does not exist." in unknown.stderr


def test_a_bad_line_is_named_before_anything_is_uploaded(trained: Server, tmp_path: Path) -> None:
    before = _uploaded(trained)
    path = _written(tmp_path, chats(12) + b'{"messages": [}\n' + chats(3))
    refused = _create(trained, "--file", path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: chats.jsonl cannot be used as training data. Line 13:")
    assert refused.stderr.endswith("Nothing was uploaded.\n")
    few = _create(trained, "--file", _written(tmp_path, chats(3)))
    assert "3 example(s), but must have at least 10" in few.stderr
    bad = _written(tmp_path, b"{}\n", "validation.jsonl")
    both = _create(trained, "--file", _written(tmp_path, chats(12)), "--validation", bad)
    assert "validation.jsonl cannot be used as validation data. Line 1:" in both.stderr
    assert _uploaded(trained) == before


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--file", "{good}", "--epochs", "51"), 1, "'n_epochs' must be"),
        (("--file", "{good}", "--epochs", "many"), 2, "not a valid integer"),
        (("--file", "{good}", "--beta", "0.1"), 1, "Unknown hyperparameter"),
        (("--file", "{good}", "--seed", "-1"), 1, "'seed' must be"),
        (("--file", "{good}", "--suffix", "a:b"), 1, "suffix"),
        (("--file", "{good}", "--model", "nobody"), 1, "'nobody' does not exist"),
        (("--file", "/nowhere.jsonl"), 2, "There is no file /nowhere.jsonl."),
        (("--file", "/tmp"), 1, "/tmp is not a regular file."),
        (("--file", "{good}.txt"), 1, "Must be .jsonl"),
        ((), 2, "--file"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_uploaded(
    trained: Server, training: str, arguments: tuple[str, ...], status: int, said: str
) -> None:
    Path(f"{training}.txt").write_bytes(b"{}")
    before = _uploaded(trained)
    refused = _create(trained, *(one.format(good=training) for one in arguments))
    assert (refused.returncode, refused.stdout) == (status, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert status == 2 or refused.stderr.count("\n") == 1
    assert _uploaded(trained) == before


def test_without_a_server_a_job_is_made_and_one_is_asked_for(data: Path, training: str) -> None:
    servers.prepare_local_base(data)
    command = ("finetune", "create", "--model", LOCAL_BASE, "--file", training)
    made = run_cli(*command, "--data", str(data))
    assert made.returncode == 0, made.stderr
    assert "No server is running on this data directory" in made.stderr
    listed = run_cli("finetune", "list", "--data", str(data))
    assert "\tvalidating_files\t" in listed.stdout
    status, said = _interrupted(
        "finetune", "events", made.stdout.strip(), "-f", "--data", str(data)
    )
    assert status == 130
    assert "No server is running on this data directory" in said


# Following


def test_a_job_that_fails_ends_with_status_1_and_why(trained: Server, tmp_path: Path) -> None:
    bad = _written(tmp_path, chats(12) + b'{"messages": []}\n')
    uploaded = trained.cli("files", "upload", bad).stdout.strip()
    made = _create(trained, "--file", uploaded, "-f")
    assert made.returncode == 1
    job = made.stdout.strip()
    assert _status(trained, job) == "failed"
    last = made.stderr.splitlines()[-1]
    assert last.startswith(f"Error: {job} failed: ")
    assert "Line 13" in last


def test_on_a_terminal_a_bar_stands_below_the_events(trained: Server, training: str) -> None:
    job = _paused(trained, training)
    with terminal.running("finetune", "events", job, "-f", data=trained.data) as shown:
        shown.wait_for("paused ")
        trained.client().fine_tuning.jobs.resume(job)
        shown.wait_for("left")
        assert shown.end() == 0
    assert ESCAPE in shown.shown
    assert f"Created fine-tuning job: {job}" in shown.shown
    assert f"{STEPS}/{STEPS}" in shown.shown
    assert re.search(r"running .*\d+/12  loss \d\.\d{3}  accuracy 0\.500", shown.shown)
    assert "training loss=" not in shown.shown, "metrics move the bar alone"
    assert shown.shown.index("Files validated") < shown.shown.index("successfully completed")
    assert f"{ESCAPE}[?25h" in shown.shown, "the cursor is shown again"
    assert "Succeeded: ft:" in shown.shown


def test_a_narrow_terminal_has_all_of_it(trained: Server, training: str) -> None:
    job = _job(trained, "--file", training)
    with terminal.running("finetune", "events", job, "-f", data=trained.data, columns=60) as shown:
        assert shown.end() == 0
    assert f"{STEPS}/{STEPS}" in shown.shown
    # An id is never broken over two lines by us.
    model = trained.client().fine_tuning.jobs.retrieve(job).fine_tuned_model
    assert f"New fine-tuned model created: {model}" in shown.shown


def test_on_a_pipe_events_are_plain_lines_oldest_first(trained: Server, training: str) -> None:
    job = _job(trained, "--file", training)
    followed = trained.cli("finetune", "events", job, "-f")
    assert followed.returncode == 0, followed.stderr
    assert not {character for character in followed.stdout if not character.isprintable()} - {"\n"}
    lines = followed.stdout.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ \S", line) for line in lines)
    assert lines == sorted(lines, key=lambda line: line[:20])
    assert "Created fine-tuning job" in lines[0]
    assert "successfully completed" in lines[-1]
    assert any(re.search(r"Step \d+/12: training loss=.*, accuracy=0\.50$", one) for one in lines)
    assert trained.cli("finetune", "events", job).stdout == followed.stdout
    http = run_cli("finetune", "events", job, settings=_over_http(trained))
    assert http.stdout == followed.stdout


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_ctrl_c_ends_the_following_and_not_the_job(
    trained: Server, training: str, where: str
) -> None:
    job = _paused(trained, training)
    assert trained.cli("finetune", "pause", job).stdout == "paused\n", "twice changes nothing"
    command = ("finetune", "events", job, "-f")
    if where == "terminal":
        with terminal.running(*command, data=trained.data) as shown:
            shown.wait_for("paused")
            shown.interrupt()
            assert shown.end() == 130
        said = shown.shown
    else:
        status, said = _interrupted(*command, "--data", str(trained.data))
        assert status == 130
    hint = f"The job goes on. To follow it again: tunewarden finetune events {job} -f --data "
    assert hint in said
    assert "Traceback" not in said
    assert "\tpaused\t" in next(
        line for line in trained.cli("finetune", "list").stdout.splitlines() if job in line
    )
    assert trained.cli("finetune", "resume", job).stdout == "queued\n"
    assert trained.cli(*command).returncode == 0
    assert _status(trained, job) == "succeeded"


def _interrupted(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tunewarden", *arguments]
    with subprocess.Popen(
        [*terminal.HEARING_CTRL_C, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=servers.environment({}),
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    return running.returncode, said


def test_following_outlasts_a_restart_of_the_server(data: Path, training: str) -> None:
    servers.prepare_local_base(data)
    server = FakeTrainerServer(data, workers=1)
    try:
        job = _paused(server, training)
        with terminal.running("finetune", "events", job, "-f", data=data) as shown:
            shown.wait_for("paused")
            server.stop()
            server.start_again()
            assert server.cli("finetune", "resume", job).returncode == 0
            assert shown.end() == 0
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()


class _AbsentServer:
    """A door to a server that answers, then not for `absent` looks, then that the job succeeded."""

    def __init__(self, absent: int) -> None:
        self.absent = absent
        self.looks = 0

    def job(self, job_id: str) -> dict[str, object]:
        self.looks += 1
        if 1 < self.looks <= 1 + self.absent:
            raise Error(Kind.UNAVAILABLE, "No server answers.")
        status = "running" if self.looks == 1 else "succeeded"
        return {"id": job_id, "status": status, "estimated_finish": None}

    def events(self, job_id: str, *, after: str | None, limit: int) -> dict[str, object]:
        return {"data": [], "has_more": False, "last_id": None}


def test_a_server_that_does_not_answer_is_waited_for_and_not_for_ever(
    capsys: pytest.CaptureFixture[str],
) -> None:
    back: Any = _AbsentServer(100)
    assert following.follow(back, "ftjob-1", io.StringIO(), HandClock())["status"] == "succeeded"
    assert capsys.readouterr().err == "The server does not answer. Waiting for it …\n"
    gone: Any = _AbsentServer(10**9)
    with pytest.raises(Error, match="No server answers"):
        following.follow(gone, "ftjob-1", io.StringIO(), HandClock())
    assert gone.looks * following.POLL_SECONDS == pytest.approx(following.SILENCE_SECONDS, rel=0.05)


# The others


def test_jobs_are_listed_and_shown_by_either_door(trained: Server, training: str) -> None:
    job = _create(trained, "--file", training, "-f").stdout.strip()
    model = trained.client().fine_tuning.jobs.retrieve(job).fine_tuned_model
    listed = trained.cli("finetune", "list", "--limit", "1").stdout.splitlines()
    assert len(listed) == 1
    assert listed[0].split("\t")[:4] == [job, "succeeded", LOCAL_BASE, model]
    shown = trained.cli("finetune", "show", job).stdout
    assert f"fine_tuned_model: {model}\n" in shown
    assert re.search(r"^checkpoint: step 6 ft:\S+:ckpt-step-6 \{", shown, re.MULTILINE)
    assert run_cli("finetune", "show", job, settings=_over_http(trained)).stdout == shown
    http = run_cli("finetune", "list", "--limit", "1", settings=_over_http(trained))
    assert http.stdout.splitlines() == listed
    with terminal.running("finetune", "list", data=trained.data) as table:
        assert table.end() == 0
    assert table.shown.startswith("ID ")
    assert "FINE-TUNED MODEL" in table.shown
    assert "\t" not in table.shown


def test_cancelling_prints_the_status_and_following_then_ends_with_1(
    trained: Server, training: str
) -> None:
    job = _paused(trained, training)
    cancelled = trained.cli("finetune", "cancel", job)
    assert (cancelled.returncode, cancelled.stdout) == (0, "cancelled\n"), cancelled.stderr
    followed = trained.cli("finetune", "events", job, "-f")
    assert followed.returncode == 1
    assert followed.stderr == f"Error: {job} was cancelled.\n"
    refused = trained.cli("finetune", "resume", job)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Job has already been cancelled" in refused.stderr


@pytest.mark.parametrize("command", ["show", "events", "cancel", "pause", "resume"])
def test_a_job_that_is_not_there_is_said_in_one_line(trained: Server, command: str) -> None:
    for settings in ({}, _over_http(trained)):
        arguments = ("finetune", command, "ftjob-nobody")
        missing = run_cli(*arguments, settings=settings) if settings else trained.cli(*arguments)
        assert (missing.returncode, missing.stdout) == (1, "")
        assert missing.stderr == "Error: Could not find fine tune: ftjob-nobody\n"


# Files


def test_files_are_listed_and_deleted_by_either_door(trained: Server, tmp_path: Path) -> None:
    path = _written(tmp_path, chats(1), 'a "quoted" näme.jsonl')
    for settings in ({}, _over_http(trained)):

        def cli(*arguments: str, stdin: str = "", settings: dict[str, str] = settings) -> CLI:
            if settings:
                return run_cli(*arguments, stdin=stdin, settings=settings)
            return trained.cli(*arguments, stdin=stdin)

        file = cli("files", "upload", path).stdout.strip()
        first = cli("files", "list", "--limit", "1").stdout.splitlines()[0].split("\t")
        assert first[:3] == [file, "fine-tune", str(len(chats(1)))]
        assert first[4] == 'a "quoted" näme.jsonl'
        assert cli("files", "list", "--purpose", "vision").stdout == ""
        wrong = cli("files", "delete", file, stdin="file-other\n")
        assert (wrong.returncode, wrong.stdout) == (1, "")
        deleted = cli("files", "delete", file, stdin=f"{file}\n")
        assert deleted.stdout.startswith("del_"), deleted.stderr
        again = cli("files", "delete", file, "--yes")
        assert again.stderr == f"Error: No such File object: {file}\n"
        assert f"\t{file}\n" in cli("deletions", "list").stdout


def test_a_large_upload_shows_its_progress_on_a_terminal(trained: Server, tmp_path: Path) -> None:
    path = _written(tmp_path, b"{}\n" * (12 * 1024 * 1024 // 3), "large.jsonl")
    with terminal.running("files", "upload", path, data=trained.data, columns=120) as shown:
        assert shown.end() == 0
    assert "Uploading large.jsonl" in shown.shown
    assert re.search(r"file-\w+\s*$", shown.shown)
    trained.cli("files", "delete", shown.shown.split()[-1], "--yes")


def test_a_refused_upload_says_why_and_not_that_nobody_answers(data: Path, tmp_path: Path) -> None:
    path = _written(tmp_path, b"{}\n" * (12 * 1024 * 1024 // 3), "large.jsonl")
    with servers.serving(data, settings={"file_bytes_max": 4096}) as server:
        refused = run_cli("files", "upload", path, settings=_over_http(server))
        assert refused.returncode == 1
        assert refused.stderr == "Error: 'file' is too large.\n"
        reader = {**_over_http(server), "OPENAI_API_KEY": server.make_key("reader")}
        forbidden = run_cli("files", "upload", path, settings=reader)
        assert forbidden.returncode == 1
        assert "No server answers" not in forbidden.stderr


def test_a_file_too_large_for_one_request_is_sent_in_parts(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_doors, "SINGLE_BYTES_MAX", 1_000_000)
    monkeypatch.setattr(job_doors, "PART_BYTES", 1_100_000)
    door = job_doors.HttpJobs(HttpDoor(server.url, server.owner_key))
    path = Path(_written(tmp_path, chats(30_000)))
    with local_files.opened(path) as file, file.shown("Uploading"):
        made = door.upload(file, "fine-tune")
    assert server.client().files.content(made["id"]).read() == path.read_bytes()
    with local_files.opened(path) as file, file.shown("Uploading"):
        path.write_bytes(chats(15_000))
        with pytest.raises(Error, match="became shorter"):
            door.upload(file, "fine-tune")
    left = server.app.database.peek("SELECT status FROM uploads ORDER BY n DESC LIMIT 1")
    assert left == ("cancelled",)


@pytest.mark.parametrize("door", ["data", "http"])
def test_memory_does_not_grow_with_the_file(data: Path, tmp_path: Path, door: str) -> None:
    line = chats(1, canary="x" * 1000)
    small, large = _written(tmp_path, line * 12, "small.jsonl"), str(tmp_path / "large.jsonl")
    with Path(large).open("wb") as file:
        block = line * 1000
        file.writelines(block for _ in range(300_000_000 // len(block)))
    with servers.serving(data, local_base=True) as server:
        peaks = [_peak_kibibytes(server, path, door) for path in (small, large)]
    print(f"peak of `finetune create` by {door}: {peaks} KiB")
    assert peaks[1] - peaks[0] < 24 * 1024, peaks


def _peak_kibibytes(server: Server, path: str, door: str) -> int:
    """The most memory that creating a job with this file takes."""
    program = (
        "import atexit, pathlib, sys;"
        "atexit.register(lambda: print(pathlib.Path('/proc/self/status').read_text()));"
        "from tunewarden.__main__ import main; main()"
    )
    where = ["--data", str(server.data)] if door == "data" else []
    command = ["finetune", "create", "--model", LOCAL_BASE, "--file", path, *where]
    ran = subprocess.run(
        [sys.executable, "-c", program, *command],
        capture_output=True,
        text=True,
        timeout=300,
        env=servers.environment({}) | ({} if where else _over_http(server)),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = re.search(r"VmHWM:\s+(\d+) kB", ran.stdout)
    assert found is not None
    return int(found[1])


# What goes with a model


def test_deleting_names_the_checkpoints_that_go_too(server: Server) -> None:
    job = fine_tuning_rows.make_job(server.app, server.owner_key, status="succeeded")
    fine_tuning_rows.set_job(server.app, job, finished_at=1)
    model = fine_tuning_rows.make_model(server.app, server.owner_key, job_id=job)
    checkpoint = fine_tuning_rows.make_checkpoint(server.app, server.owner_key, job, 3, {})
    for settings in ({}, _over_http(server)):
        arguments = ("models", "delete", model.id)
        refused = (
            run_cli(*arguments, stdin="no\n", settings=settings)
            if settings
            else server.cli(*arguments, stdin="no\n")
        )
        assert refused.returncode == 1
        assert f"go with it:\n  {checkpoint.id}\n" in refused.stderr
    assert server.cli("models", "delete", model.id, stdin=f"{model.id}\n").returncode == 0
    assert server.get(f"/v1/models/{checkpoint.id}", key=server.owner_key).status == 404


def test_a_model_that_a_job_needs_is_not_asked_for(server: Server) -> None:
    job = fine_tuning_rows.make_job(server.app, server.owner_key, status="running")
    model = fine_tuning_rows.make_model(server.app, server.owner_key)
    fine_tuning_rows.set_job(server.app, job, start_n=model.n, is_paused=1, status="queued")
    refused = server.cli("models", "delete", model.id)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Type the model's id" not in refused.stderr
    assert job in refused.stderr
    assert server.cli("models", "delete", model.id, "--yes").returncode == 1
    fine_tuning_rows.set_job(server.app, job, status="cancelled", finished_at=1)
