"""Real servers for tests: `python -m tunewarden serve` in a directory of its own, over a real socket."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import openai
from tests.support import bases, sdk_http

from tunewarden import swap
from tunewarden.app import App, open_app
from tunewarden.config import Config
from tunewarden.identity import keys
from tunewarden.identity.policy import ProjectRole, Role
from tunewarden.registry.models import Model
from tunewarden.server.first_start import add_local_base, make_owner
from tunewarden.settings import ENVIRONMENT_PREFIX

# Bounds for a machine that is busy; nothing waits for longer than it takes.
START_SECONDS = 60.0
WAIT_SECONDS = 60.0
STOP_SECONDS = 25.0
POLL_SECONDS = 0.02
LOCAL_BASE = "tiny-base"
ORGANIZATION = "my-org"
SWAPS = swap.places()
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) <= 1, f"{name} was sent {len(found)} times"
        return found[0] if found else None

    @property
    def json(self) -> dict[str, Any]:
        read = json.loads(self.body)
        assert isinstance(read, dict)
        return read

    @property
    def error(self) -> dict[str, Any]:
        found = self.json["error"]
        assert isinstance(found, dict)
        assert set(found) == {"message", "type", "param", "code"}
        return found


class Server:
    """One running server. Everything that it is asked goes through its socket or its command line."""

    program: ClassVar[str] = "tunewarden"

    def __init__(
        self,
        data: Path,
        *,
        workers: int = 2,
        settings: Mapping[str, object] | None = None,
        prefix: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.data = data
        self._prefix = prefix  # of the command; it must end by executing it
        self._options = options
        self.scratch = _scratch()
        # Temporary files of the server's processes would be here, where nobody else's are.
        self.tmp = data.parent / f"{data.name}.tmp"
        self.tmp.mkdir(exist_ok=True)
        self.settings = {"scratch": self.scratch, **(settings or {})}
        self._workers = workers
        try:
            self._start()
        except BaseException:
            self.kill()
            raise

    def _start(self) -> None:
        (self.data / "run" / "server.json").unlink(missing_ok=True)
        with self._file("stdout").open("ab") as out, self._file("stderr").open("ab") as err:
            options = ["--data", str(self.data), "--port", "0", "--workers", str(self._workers)]
            options += self._options
            self.process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", self.program, "serve", *options],
                stdout=out,
                stderr=err,
                env=environment(self.settings) | {"TMPDIR": str(self.tmp)},
                cwd=REPOSITORY,
            )
        wait_until(self._is_ready, "the server answers", START_SECONDS)

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log()}")
        try:
            self.url = json.loads((self.data / "run" / "server.json").read_text())["url"]
            return self.get("/readyz").status == 200
        except (OSError, ValueError, http.client.HTTPException):
            return False

    @property
    def owner_key(self) -> str:
        return (self.data / "owner.key").read_text().strip()

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    @property
    def app(self) -> App:
        """The data directory, opened from this process."""
        return open_data(self.data)

    def _file(self, name: str) -> Path:
        return self.data.parent / f"{self.data.name}.{name}"

    def printed(self) -> str:
        return self._file("stdout").read_text()

    def log(self) -> str:
        return self._file("stderr").read_text()

    def client(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        made = {"http_client": sdk_http.client(), **options}
        return openai.OpenAI(base_url=self.url, api_key=key or self.owner_key, **made)

    def async_client(self, key: str | None = None, **options: Any) -> openai.AsyncOpenAI:
        made = {"http_client": sdk_http.async_client(), **options}
        return openai.AsyncOpenAI(base_url=self.url, api_key=key or self.owner_key, **made)

    def request(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """Send a request with exactly this path and these headers; no key unless one is given."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            sent = dict(headers or {})
            if key is not None:
                sent["authorization"] = f"Bearer {key}"
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Reply(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def get(self, path: str, *, key: str | None = None) -> Reply:
        return self.request("GET", path, key=key)

    def post(self, path: str, fields: object, *, key: str | None = None) -> Reply:
        return self.request(
            "POST",
            path,
            key=key or self.owner_key,
            headers={"content-type": "application/json"},
            body=json.dumps(fields).encode(),
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def cli(
        self, *arguments: str, stdin: str = "", settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this server's data directory."""
        return run_cli(*arguments, "--data", str(self.data), stdin=stdin, settings=settings)

    def revoke_key(self, key: str) -> None:
        """Revoke a key for good, by its text."""
        with self.app.database.write(below_floor=True) as tx:
            keys.revoke(tx, f"key_{key.split('-')[2]}")

    def make_key(
        self,
        role: str,
        *scopes: str,
        organization: str = ORGANIZATION,
        project_role: ProjectRole | None = None,
    ) -> str:
        """Make a key by the operation itself, which is quicker than its command."""
        name = project_role or role  # those without a role of their own in the project share a user
        with self.app.database.write() as tx:
            return keys.create(
                tx,
                organization=organization,
                role=Role(role),
                name=name,
                scopes=scopes,
                project_role=project_role,
            )[1]

    def make_model(self, *, key: str | None = None, suffix: str = "") -> Model:
        """Import the tiny adapter for whoever holds the key."""
        return import_adapter(self.app, key or self.owner_key, suffix=suffix)

    def engine_pid(self) -> int:
        """Return the process of the engine that answers, by its note."""
        noted = self.app.config.engine_socket.with_suffix(".pid").read_bytes()
        return int(json.loads(noted)["pid"])

    def processes(self) -> list[int]:
        """The supervisor and all that it started."""
        return [self.process.pid, *descendants(self.process.pid)]

    def running(self, module: str) -> list[int]:
        """Its processes that `ps` shows as this module."""
        return [pid for pid in self.processes()[1:] if module.encode() in _arguments(pid)]

    def stop(self) -> None:
        """SIGTERM; it must end well and leave no process."""
        family = descendants(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=STOP_SECONDS)
        assert self.process.returncode == 0, self.log()
        left = [pid for pid in family if is_alive(pid)]
        assert left == [], f"processes were left: {left}"
        # What any of them warned of would be in the user's terminal.
        assert "Warning: " not in self.log(), self.log()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def start_again(self) -> None:
        self.scratch.mkdir(exist_ok=True)
        self._start()

    def kill(self) -> None:
        """SIGKILL, for tests that are about it and for those that failed."""
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


class WithoutTorch(Server):
    """Its engine is the stand-in, which starts at once: where nothing is asked of a model."""

    program: ClassVar[str] = "tests.fakes.with_fake_engine"


@contextlib.contextmanager
def serving(
    data: Path,
    *,
    workers: int = 1,
    settings: Mapping[str, object] | None = None,
    local_base: bool = False,
    prefix: Sequence[str] = (),
    options: Sequence[str] = (),
    kind: type[Server] = Server,
) -> Iterator[Server]:
    """Run a server for a block, and stop it cleanly unless the block stopped it itself."""
    if local_base:
        prepare_local_base(data)
    server = kind(data, workers=workers, settings=settings, prefix=prefix, options=options)
    try:
        yield server
        if server.process.poll() is None:
            server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
        shutil.rmtree(server.scratch, ignore_errors=True)


@contextlib.contextmanager
def stopped_after(server: "Server") -> Iterator[None]:
    """Have a running server for a block; it must stop cleanly after it."""
    try:
        yield
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()


def prepare_local_base(data: Path) -> None:
    """Make a data directory that has the tiny base, before any server runs on it."""
    app = open_app(Config(data=data), migrate=True)
    make_owner(app)
    add_local_base(app, LOCAL_BASE, bases.write_base(data.parent / f"{data.name}-base"))


def open_data(data: Path) -> App:
    return open_app(Config(data=data))


def import_adapter(
    app: App,
    key: str,
    *,
    suffix: str = "",
    adapter: bases.Adapter | None = None,
    base: str = LOCAL_BASE,
) -> Model:
    caller = keys.authenticate(app.database, key, "req_test")
    files = adapter or bases.adapter()
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w+b", buffering=0) as weights:
        weights.write(files.weights)
        weights.seek(0)
        return app.imports.bring_in(
            caller, base=base, suffix=suffix, config=BytesIO(files.config), weights=weights
        )


def run_cli(
    *arguments: str,
    stdin: str = "",
    settings: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run a `tunewarden` command in an environment without any setting but these."""
    return subprocess.run(
        [sys.executable, "-m", "tunewarden", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment({}) | dict(settings or {}),
        check=False,
    )


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """The environment of this process without settings and keys, plus `settings`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((ENVIRONMENT_PREFIX, "OPENAI_"))
    }
    # Also on a machine that swaps: what tests keep is no secret.
    settings = {"swap_may_hold_plain_weights": "true", **settings} if SWAPS else settings
    named = {f"{ENVIRONMENT_PREFIX}{key.upper()}": str(settings[key]) for key in settings}
    return kept | named


def wait_until(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Poll until the condition holds; fail with `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(POLL_SECONDS)


def descendants(pid: int) -> list[int]:
    """Every process below this one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def is_alive(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """State, parent and what follows of proc(5)'s stat; nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _scratch() -> Path:
    path = Path(f"/dev/shm/tunewarden-test-{os.getpid()}-{os.urandom(4).hex()}")
    path.mkdir(mode=0o700)
    return path
