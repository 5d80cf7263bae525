"""The checks of `tunewarden doctor`, with remedies."""

import importlib.util
import resource
from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from tunewarden.app import App, inventory, open_app, recover, scratch_directory, with_no_server
from tunewarden.artifacts.plain_memory import REMEDY
from tunewarden.cli import data_directory, engine_lookup, waiting
from tunewarden.cli.client import Client
from tunewarden.config import Config
from tunewarden.deletion import expiry_pause
from tunewarden.deletion.expiry_pause import JUMP_MICROS
from tunewarden.engines import keys
from tunewarden.errors import Error
from tunewarden.registry import bases
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.server import start_checks


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `is_pending`: not yet as it will be, which is no failure."""

    is_well: bool
    what: str
    found: str
    is_pending: bool = False


def examine(settings: Config, *, is_deep: bool) -> Iterator[Finding]:
    """Run all read-only checks; if `is_deep`, also search every place of the inventory."""
    yield Finding(True, "SQLite", f"{apsw.sqlite_lib_version()}, bundled")  # noqa: FBT003
    try:
        app = open_app(settings)
    except Error as error:
        yield Finding(False, "data directory", error.message)  # noqa: FBT003
        return
    yield _integrity(app.database.peek("PRAGMA quick_check"))
    yield from _private(settings)
    yield Finding(
        app.floor.is_met(),
        "disk",
        f"{app.floor.state()}: {app.floor.free_bytes() >> 20} MiB free, the floor is {app.floor.floor_bytes >> 20} MiB",
    )
    try:
        yield Finding(True, "scratch", f"{scratch_directory(settings)}, in memory")  # noqa: FBT003
    except Error as error:
        yield Finding(False, "scratch", error.message)  # noqa: FBT003
    yield _swap(app)
    yield _expiry(app)
    local = [base for base in bases.list_all(app.database) if base.kind is BaseKind.LOCAL]
    has_torch = importlib.util.find_spec("torch") is not None
    yield Finding(
        has_torch or not local,
        "embedded engine",
        "installed" if has_torch else "not installed: pip install 'tunewarden[local]'",
    )
    is_running = data_directory.server_url(settings) is not None
    yield Finding(True, "server", "running" if is_running else "not running")  # noqa: FBT003
    if is_running:
        yield from _answering(settings, local)
    for base in bases.list_all(app.database):
        if base.kind is BaseKind.REMOTE:
            yield _engine_at(settings, base)
    if is_deep:
        yield from _remnants(app, is_running=is_running)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Finding(files >= 1024, "open files", f"{files} allowed; 1024 or more are needed")


def _answering(settings: Config, local: list[Base]) -> Iterator[Finding]:
    try:
        with data_directory.opened(settings) as directory:
            for base in local:
                yield _local_base(settings, Client(directory), base.name)
    except Error as error:
        yield Finding(False, "base", error.message)  # noqa: FBT003


def _local_base(settings: Config, client: Client, name: str) -> Finding:
    if waiting.answers(client, name):
        return Finding(True, "base", name)  # noqa: FBT003
    seconds = data_directory.seconds_since_start(settings)
    if seconds < waiting.WAIT_SECONDS:
        found = f"{name} is loading; the server started {seconds:.0f} s ago"
        return Finding(True, "base", found, is_pending=True)  # noqa: FBT003
    advice = "it may still be loading, or the server's log says why it cannot be"
    return Finding(False, "base", f"{name} does not answer: {advice}")  # noqa: FBT003


def _engine_at(settings: Config, base: Base) -> Finding:
    key = keys.read(settings.engine_keys, base.name)
    where = keys.path_of(settings.engine_keys, base.name)
    advice = f"Put its API key into {where} and restart."
    try:
        engine_lookup.model_at(base.location, base.engine_model, key, advice)
    except Error as error:
        return Finding(False, "remote base", f"{base.name}: {error.message}")  # noqa: FBT003
    return Finding(True, "remote base", f"{base.name} at {base.location}")  # noqa: FBT003


def _remnants(app: App, *, is_running: bool) -> Iterator[Finding]:
    """Search every place of the inventory for remnants."""
    count = 0
    for remnant in inventory(app).remnants(is_running=is_running):
        count += 1
        advice = "; `tunewarden doctor --sweep` erases it" if remnant.can_be_swept else ""
        yield Finding(False, remnant.place, remnant.what + advice)  # noqa: FBT003
    if not count:
        yield Finding(True, "remnants", "none in any place of the inventory")  # noqa: FBT003


def sweep(settings: Config) -> int:
    """Erase leftovers of crashes and restores; return their number. Raises Error(CONFLICT)."""
    with with_no_server(settings):
        app = open_app(settings, migrate=True)
        recover(app)
        return inventory(app).sweep()


def _swap(app: App) -> Finding:
    where = ", ".join(app.memory.places())
    if not where:
        return Finding(True, "swap", "memory is not swapped to a disk")  # noqa: FBT003
    if app.memory.swap_is_accepted:
        return Finding(True, "swap", f"plaintext weights may reach {where}, as accepted")  # noqa: FBT003
    return Finding(False, "swap", f"memory may be swapped to {where}: {REMEDY}")  # noqa: FBT003


def _expiry(app: App) -> Finding:
    pause = expiry_pause.pause_of(app.database)
    if pause is None:
        return Finding(True, "expiry", "files and uploads expire in time")  # noqa: FBT003
    days = pause.jumped_micros / JUMP_MICROS
    return Finding(
        False,  # noqa: FBT003
        "expiry",
        f"paused: the clock jumped {days:.1f} days ahead, or the server was off for as long. Check the"
        " machine's clock, then run `tunewarden expiry resume`",
    )


def _integrity(row: tuple[object, ...] | None) -> Finding:
    found = str(row[0]) if row else "no answer"
    return Finding(found == "ok", "database", found)


def _private(settings: Config) -> Iterator[Finding]:
    """Search for files that other users can read."""
    found = list(start_checks.too_open(settings))
    for path, mode in found:
        yield Finding(False, path.name, f"mode {mode:04o}: run chmod go= {path}")  # noqa: FBT003
    if not found:
        yield Finding(True, "modes", "only its owner can access the data directory")  # noqa: FBT003
