"""The suite of the official SDK: its archive, and one run of it against a running server."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.support import servers

HERE = Path(__file__).parent
ARCHIVES = HERE.parents[1] / ".cache" / "openai-sdist"
# What the suite needs beside pytest; `make setup` puts it there.
EXTRA = Path(sys.prefix) / "openai-suite"
PINNED = re.compile(r"^openai==(\S+) --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)
RUN_SECONDS = 600
FOLDER = "tests/api_resources"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one test. `name` is its pytest id below FOLDER; `text` says why it did not pass."""

    name: str
    outcome: str
    text: str

    @property
    def has_passed(self) -> bool:
        return self.outcome == "passed"


def version() -> str:
    """The SDK's version that the suite is of."""
    return _pinned()[0]


def unpack(directory: Path) -> Path:
    """Unpack the pinned archive, byte for byte the one that was pinned; return its top folder."""
    number, digest = _pinned()
    archive = ARCHIVES / f"openai-{number}.tar.gz"
    if not archive.is_file() or not EXTRA.is_dir():
        raise AssertionError(f"{archive.name} is not there, or {EXTRA} is not: run `make setup`.")
    assert sha256(archive.read_bytes()).hexdigest() == digest, f"{archive} is not what was pinned"
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    return directory / f"openai-{number}"


def run(
    suite: Path,
    files: list[str],
    *,
    url: str,
    key: str,
    admin_key: str = "",
    before: Callable[[str], None],
) -> list[Outcome]:
    """Run files of the suite in one process, with its own SDK; `before` restores what a test expects."""
    outcomes: dict[str, list[str]] = {}
    with _listening(suite.parent / "seeds.sock", before, outcomes) as path:
        variables = {
            "PYTHONPATH": os.pathsep.join(map(str, (suite / "src", EXTRA, HERE / "plugin"))),
            "TEST_API_BASE_URL": url,
            "TEST_SEEDS_SOCKET": str(path),
            "TEST_SEEDS_KEY": key,
            "TEST_SEEDS_ADMIN_KEY": admin_key,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        environment = servers.environment({}) | variables
        for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_XDIST_WORKER"):
            environment.pop(name, None)
        plugins = ["-p", "pytest_asyncio.plugin", "-p", "tunewarden_seeds"]
        # Hundreds fail, as is meant: pytest's own form of a traceback parses each file of it, ten times the work.
        options = ["-o", "addopts=", "-q", "--tb=native", *plugins]
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *(f"{FOLDER}/{file}" for file in files)],
            cwd=suite,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    # 1: some tests failed, which is judged by their names.
    assert ran.returncode in {0, 1}, ran.stdout
    assert outcomes, ran.stdout
    return [Outcome(name.removeprefix(f"{FOLDER}/"), *end) for name, end in outcomes.items()]


@contextlib.contextmanager
def _listening(
    path: Path, before: Callable[[str], None], outcomes: dict[str, list[str]]
) -> Iterator[Path]:
    """Answer the plugin for a block."""

    def answer(line: str) -> dict[str, object]:
        asked = json.loads(line)
        if "outcomes" in asked:
            outcomes.update(asked["outcomes"])
            return {}
        try:
            before(asked["before"].removeprefix(f"{FOLDER}/"))
        except Exception as error:  # noqa: BLE001  a boundary
            # A boundary: the test that asked fails with it, and the others go on.
            return {"problem": repr(error)}
        return {}

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listening.accept()
            with connection, connection.makefile("rw") as stream:
                for line in stream:
                    stream.write(json.dumps(answer(line)) + "\n")
                    stream.flush()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def _pinned() -> tuple[str, str]:
    found = PINNED.search((HERE / "sdk.txt").read_text("utf-8"))
    assert found is not None, "sdk.txt pins no archive"
    return found[1], found[2]
