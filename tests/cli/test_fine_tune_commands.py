"""Fine-tuning jobs on the command line. The trainer is the stand-in, all else is real.

Most commands run in this process (in_process.py); `Server.cli` and `servers.run_cli` give them one of their own.
"""

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
from tests.chaos.fake_engine_server import FakeEngineServer
from tests.cli import in_process, terminal
from tests.cli.in_process import over_http
from tests.fakes.clock import HandClock
from tests.support import servers
from tests.support.jobs import chats
from tests.support.servers import LOCAL_BASE, Server

from tunewarden.cli import following
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.errors import Error, Kind

STEPS = 12
# A command may take this much more for a file of so many bytes.
PEAK_KIBIBYTES, LARGE_BYTES = 8 * 1024, 32_000_000
ESCAPE = "\x1b"
CREATE = ("fine-tunes", "create", "--model", LOCAL_BASE)
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
    with servers.stopped_after(server):
        yield server


@pytest.fixture
def training(tmp_path: Path) -> str:
    return _written(tmp_path, chats(12))


def _written(directory: Path, content: bytes, name: str = "chats.jsonl") -> str:
    path = directory / name
    path.write_bytes(content)
    return str(path)


def _create(server: Server, *arguments: str) -> CLI:
    return in_process.on(server, *CREATE, *arguments)


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


def _uploaded(server: Server) -> int:
    """How many files were uploaded: jobs of other tests may add result files at any time."""
    return len(server.client().files.list(purpose="fine-tune").data)


def _status(server: Server, job: str) -> str:
    return server.client().fine_tuning.jobs.retrieve(job).status


# Creating


def test_a_job_is_made_from_a_local_file_and_its_id_stands_alone(
    trained: Server, training: str
) -> None:
    made = trained.cli(*CREATE, "--file", training, "--suffix", "mine", "--epochs", "2")
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"ftjob-\w+\n", made.stdout)
    assert re.fullmatch(r"chats\.jsonl: 12 examples, file-\w+\n", made.stderr)
    job = trained.client().fine_tuning.jobs.retrieve(made.stdout.strip())
    assert (job.model, job.user_provided_suffix) == (LOCAL_BASE, "mine")  # type: ignore[attr-defined]  # the SDK keeps what it does not know
    assert trained.client().files.content(job.training_file).read() == chats(12)


@pytest.mark.parametrize("by", ["directory", "address"])
def test_following_ends_with_the_job_and_tells_its_model(
    trained: Server, training: str, by: str
) -> None:
    command = (*CREATE, "--file", training, "-f")
    if by == "directory":
        made = trained.cli(*command)
    else:
        made = servers.run_cli(*command, settings=over_http(trained))
    assert made.returncode == 0, made.stderr
    job = made.stdout.removesuffix("\n")
    assert _status(trained, job) == "succeeded"
    lines = made.stderr.splitlines()
    assert "Created fine-tuning job" in lines[1], "oldest first"
    assert any(f"Step {STEPS}/{STEPS}: training loss=" in line for line in lines)
    assert lines[-1].startswith(f"Succeeded: ft:{LOCAL_BASE}:")
    assert ESCAPE not in made.stderr
    assert "\r" not in made.stderr


def test_every_choice_arrives_at_the_server_by_address_and_by_directory(
    trained: Server, tmp_path: Path
) -> None:
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
    made = in_process.run_cli(*CREATE, *choices, settings=over_http(trained))
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
    uploaded = in_process.on(trained, "files", "upload", training)
    assert re.fullmatch(r"file-\w+\n", uploaded.stdout), uploaded.stderr
    made = _create(trained, "--file", uploaded.stdout.strip())
    assert (made.returncode, made.stderr) == (0, "")
    unknown = _create(trained, "--file", "file-nobody")
    assert (unknown.returncode, unknown.stdout) == (ExitCode.FAILED, "")
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
        (("--file", "{good}", "--model", "nobody"), 3, "'nobody' does not exist"),
        (("--file", "/nowhere.jsonl"), 2, "File /nowhere.jsonl does not exist."),
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
    command = (*CREATE, "--file", training)
    made = in_process.run_cli(*command, "--data", str(data))
    assert made.returncode == 0, made.stderr
    assert "No server is running on this data directory" in made.stderr
    listed = in_process.run_cli("fine-tunes", "list", "--data", str(data))
    assert "\tvalidating_files\t" in listed.stdout
    status, said = _interrupted(
        "fine-tunes", "events", made.stdout.strip(), "-f", "--data", str(data)
    )
    assert status == 130
    assert "No server is running on this data directory" in said


# Following


def test_a_job_that_fails_ends_with_status_1_and_why(trained: Server, tmp_path: Path) -> None:
    bad = _written(tmp_path, chats(12) + b'{"messages": []}\n')
    uploaded = in_process.on(trained, "files", "upload", bad).stdout.strip()
    made = _create(trained, "--file", uploaded, "-f")
    assert made.returncode == 1
    job = made.stdout.strip()
    assert _status(trained, job) == "failed"
    last = made.stderr.splitlines()[-1]
    assert last.startswith(f"Error: {job} failed: ")
    assert "Line 13" in last


def test_on_a_terminal_a_bar_stands_below_the_events(trained: Server, training: str) -> None:
    job = _paused(trained, training)
    with terminal.running("fine-tunes", "events", job, "-f", data=trained.data) as shown:
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
    with terminal.running(
        "fine-tunes", "events", job, "-f", data=trained.data, columns=60
    ) as shown:
        assert shown.end() == 0
    assert f"{STEPS}/{STEPS}" in shown.shown
    # An id is never broken over two lines by us.
    model = trained.client().fine_tuning.jobs.retrieve(job).fine_tuned_model
    assert f"New fine-tuned model created: {model}" in shown.shown


def test_on_a_pipe_events_are_plain_lines_oldest_first(trained: Server, training: str) -> None:
    job = _job(trained, "--file", training)
    followed = in_process.on(trained, "fine-tunes", "events", job, "-f")
    assert followed.returncode == 0, followed.stderr
    assert not {character for character in followed.stdout if not character.isprintable()} - {"\n"}
    lines = followed.stdout.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ \S", line) for line in lines)
    assert lines == sorted(lines, key=lambda line: line[:20])
    assert "Created fine-tuning job" in lines[0]
    assert "successfully completed" in lines[-1]
    assert any(re.search(r"Step \d+/12: training loss=.*, accuracy=0\.50$", one) for one in lines)
    assert in_process.on(trained, "fine-tunes", "events", job).stdout == followed.stdout
    http = in_process.run_cli("fine-tunes", "events", job, settings=over_http(trained))
    assert http.stdout == followed.stdout
    curves = in_process.on(trained, "fine-tunes", "metrics", job).stdout.splitlines()
    assert curves[-1].split("\t")[0] == str(STEPS)
    assert all(re.fullmatch(r"\d+(\t(\d+\.\d{4}|-)){4}", line) for line in curves)


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_ctrl_c_ends_the_following_and_not_the_job(
    trained: Server, training: str, where: str
) -> None:
    job = _paused(trained, training)
    assert in_process.on(trained, "fine-tunes", "pause", job).stdout == "paused\n", (
        "twice changes nothing"
    )
    command = ("fine-tunes", "events", job, "-f")
    if where == "terminal":
        with terminal.running(*command, data=trained.data) as shown:
            shown.wait_for("paused")
            shown.interrupt()
            assert shown.end() == 130
        said = shown.shown
    else:
        status, said = _interrupted(*command, "--data", str(trained.data))
        assert status == 130
    hint = f"The job continues. To follow it again: tunewarden fine-tunes events {job} -f --data "
    assert hint in said
    assert "Traceback" not in said
    assert "\tpaused\t" in next(
        line
        for line in in_process.on(trained, "fine-tunes", "list").stdout.splitlines()
        if job in line
    )
    assert in_process.on(trained, "fine-tunes", "resume", job).stdout == "queued\n"
    assert in_process.on(trained, *command).returncode == 0
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
        with terminal.running("fine-tunes", "events", job, "-f", data=data) as shown:
            shown.wait_for("paused")
            server.stop()
            server.start_again()
            assert in_process.on(server, "fine-tunes", "resume", job).returncode == 0
            assert shown.end() == 0
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()


class _AbsentServer:
    """A client of a server that answers, then not for `absent` looks, then that the job succeeded."""

    def __init__(self, absent: int) -> None:
        self.absent = absent
        self.looks = 0

    def get(self, *path: str, **query: object) -> dict[str, object]:
        if path[-1] == "events":
            return {"data": [], "has_more": False}
        self.looks += 1
        if 1 < self.looks <= 1 + self.absent:
            raise Error(Kind.UNAVAILABLE, "No server answers.")
        status = "running" if self.looks == 1 else "succeeded"
        return {"id": path[-1], "status": status, "estimated_finish": None}


def test_a_server_that_does_not_answer_is_waited_for_and_not_for_ever(
    capsys: pytest.CaptureFixture[str],
) -> None:
    back: Any = _AbsentServer(100)
    assert following.follow(back, "ftjob-1", io.StringIO(), HandClock())["status"] == "succeeded"
    assert capsys.readouterr().err == "The server does not respond. Waiting …\n"
    gone: Any = _AbsentServer(10**9)
    with pytest.raises(Error, match="No server answers"):
        following.follow(gone, "ftjob-1", io.StringIO(), HandClock())
    assert gone.looks * following.POLL_SECONDS == pytest.approx(following.SILENCE_SECONDS, rel=0.05)


# The others


def test_jobs_are_listed_and_shown_by_address_and_by_directory(
    trained: Server, training: str
) -> None:
    job = _create(trained, "--file", training, "-f").stdout.strip()
    model = trained.client().fine_tuning.jobs.retrieve(job).fine_tuned_model
    listed = in_process.on(trained, "fine-tunes", "list", "--limit", "1").stdout.splitlines()
    assert len(listed) == 1
    assert listed[0].split("\t")[:4] == [job, "succeeded", LOCAL_BASE, model]
    shown = in_process.on(trained, "fine-tunes", "show", job).stdout
    assert f"fine_tuned_model: {model}\n" in shown
    assert re.search(r"^checkpoint: step 6 ft:\S+:ckpt-step-6 \{", shown, re.MULTILINE)
    assert (
        in_process.run_cli("fine-tunes", "show", job, settings=over_http(trained)).stdout == shown
    )
    http = in_process.run_cli("fine-tunes", "list", "--limit", "1", settings=over_http(trained))
    assert http.stdout.splitlines() == listed
    with terminal.running("fine-tunes", "list", data=trained.data) as table:
        assert table.end() == 0
    assert table.shown.startswith("ID ")
    assert "FINE-TUNED MODEL" in table.shown
    assert "\t" not in table.shown


def test_cancelling_prints_the_status_and_following_then_ends_with_1(
    trained: Server, training: str
) -> None:
    job = _paused(trained, training)
    cancelled = in_process.on(trained, "fine-tunes", "cancel", job)
    assert (cancelled.returncode, cancelled.stdout) == (0, "cancelled\n"), cancelled.stderr
    followed = in_process.on(trained, "fine-tunes", "events", job, "-f")
    assert followed.returncode == 1
    assert followed.stderr == f"Error: {job} was cancelled.\n"
    refused = in_process.on(trained, "fine-tunes", "resume", job)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Job has already been cancelled" in refused.stderr


@pytest.mark.parametrize("command", ["show", "events", "cancel", "pause", "resume"])
def test_a_job_that_is_not_there_is_said_in_one_line(trained: Server, command: str) -> None:
    for settings in ({}, over_http(trained)):
        arguments = ("fine-tunes", command, "ftjob-nobody")
        missing = (
            in_process.run_cli(*arguments, settings=settings)
            if settings
            else in_process.on(trained, *arguments)
        )
        assert (missing.returncode, missing.stdout) == (ExitCode.NOT_FOUND, "")
        assert missing.stderr == "Error: Could not find fine tune: ftjob-nobody\n"


# Memory


@pytest.mark.parametrize("by", ["directory", "address"])
def test_memory_does_not_grow_with_the_file(
    trained: Server, data: Path, tmp_path: Path, by: str
) -> None:
    """By the directory of no server, so that the application reads the file in the command's process."""
    if by == "directory":
        servers.prepare_local_base(data)
    where = {"TUNEWARDEN_DATA": str(data)} if by == "directory" else over_http(trained)
    line = chats(1, canary="x" * 1000)
    small, large = _written(tmp_path, line * 12, "small.jsonl"), str(tmp_path / "large.jsonl")
    with Path(large).open("wb") as file:
        block = line * 1000
        file.writelines(block for _ in range(LARGE_BYTES // len(block)))
    peaks = [_peak_kibibytes(where, path) for path in (small, large)]
    print(f"peak of `fine-tunes create` by {by}: {peaks} KiB")
    assert peaks[1] - peaks[0] < PEAK_KIBIBYTES, peaks


def _peak_kibibytes(where: dict[str, str], path: str) -> int:
    """The most memory that creating a job with this file takes."""
    program = (
        "import atexit, pathlib, sys;"
        "atexit.register(lambda: print(pathlib.Path('/proc/self/status').read_text()));"
        "from tunewarden.__main__ import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *CREATE, "--file", path],
        capture_output=True,
        text=True,
        timeout=300,
        env=servers.environment({}) | where,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = re.search(r"VmHWM:\s+(\d+) kB", ran.stdout)
    assert found is not None
    return int(found[1])
