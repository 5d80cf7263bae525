"""SIGKILL of a migration's command at each piece of a request or an answer, at the source and at the target.

It goes on from there: every file and every answer is there, none twice, and no more is asked again than was in flight.
"""

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.fakes import openai_source
from tests.fakes.cutting_proxy import CuttingProxy
from tests.fakes.openai_source import OpenAI
from tests.support import migrations
from tests.support.migrations import BASE, FIRST, Moving
from tests.support.servers import Server

from tunewarden.cli import migration_target

IS_LONG = bool(os.environ.get("TUNEWARDEN_TORTURE"))
# A kill at each piece, or at each third.
STRIDE = 1 if IS_LONG else 3
# Fewer pieces would mean that next to nothing was asked.
PIECES_MIN = 8
STEPS = {"inventory": (), "download": (), "record": ("--yes", "--concurrency", "1")}


@pytest.fixture
def source() -> Iterator[OpenAI]:
    has = OpenAI()
    has.models = [BASE, FIRST]
    results = has.add_file(b"step,train_loss\n1,2.5\n", purpose="fine-tune-results")
    has.add_job(FIRST, BASE, has.add_file(migrations.chats(3)), result_files=[results])
    with openai_source.serving(has):
        yield has


@dataclass
class Killer:
    """Kills a process when so many pieces have come."""

    at: int
    process: subprocess.Popen[bytes] | None = None
    seen: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    def on_piece(self) -> None:
        with self.guard:
            if self.process is None:
                return
            self.seen += 1
            if self.seen == self.at:
                self.process.kill()
                self.process.wait()


@pytest.mark.parametrize("step", STEPS)
def test_a_command_that_is_killed_goes_on(
    source: OpenAI, server: Server, tmp_path: Path, step: str
) -> None:
    kills = _kill_at_each_piece(source, server, tmp_path, step, STRIDE)
    print(f"killed-migrations {step} kills {kills} violations 0")
    assert kills >= PIECES_MIN // STRIDE


def test_the_control_makes_a_file_twice(
    source: OpenAI, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not say that it may be repeating a request that was answered."""
    monkeypatch.setattr(migration_target, "REPEATED", {})
    with pytest.raises(AssertionError, match="nobody knows"):
        _kill_at_each_piece(source, server, tmp_path, "download", 1)


def _kill_at_each_piece(
    source: OpenAI, server: Server, tmp_path: Path, step: str, stride: int
) -> int:
    """Kill a step at one piece after the other until it ends before; return how often it was killed."""
    kills = 0
    for at in range(1, 1000, stride):
        directory = tmp_path / str(at)
        directory.mkdir()
        if not _is_killed(source, server, directory, step, at):
            break
        kills += 1
    return kills


def _is_killed(source: OpenAI, server: Server, directory: Path, step: str, at: int) -> bool:
    """Kill a step at a piece, and let it go on; False if it had ended by then."""
    source.answered.clear()
    before = {one.id for one in server.client().files.list()}
    killer = Killer(at)
    host, port = source.url.removeprefix("http://").removesuffix("/v1").split(":")
    with (
        CuttingProxy((host, int(port)), on_piece=killer.on_piece) as near,
        CuttingProxy(server.address, on_piece=killer.on_piece) as far,
    ):
        settings = {"OPENAI_BASE_URL": far.url, "OPENAI_API_KEY": server.owner_key}
        moving = migrations.moving(directory, near.url, settings=settings)
        for earlier, options in STEPS.items():
            if earlier == step:
                break
            assert moving.run(earlier, *options).returncode == 0
        killer.process = moving.start(step, *STEPS[step])
        status = killer.process.wait()
        assert killer.process.stderr is not None
        killer.process.stderr.close()
        killer.process = None
        for later, options in STEPS.items():
            ran = moving.run(later, *options)
            assert ran.returncode == 0, ran.stderr
    _check(source, server, moving, before)
    return status != 0


def _check(source: OpenAI, server: Server, moving: Moving, before: set[str]) -> None:
    noted = moving.noted("downloads")["files"]
    assert isinstance(noted, dict)
    assert noted.keys() == source.contents.keys()
    saved = {one["file"] for one in noted.values()}
    recorded = migrations.answers(server, moving)
    assert sorted(one["line"] for one in recorded) == [1, 2, 3]
    files = {file for one in migrations.answer_notes(moving) for file in one["files"]}
    made = {one.id for one in server.client().files.list()} - before
    assert made == saved | files, "files were made that nobody knows"
    for name, one in noted.items():
        assert server.client().files.content(one["file"]).read() == source.contents[name]
    # One question was in flight, at most.
    assert sum(source.answered.values()) <= 3 + 1
