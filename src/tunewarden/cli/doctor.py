"""`tunewarden doctor`: what is well and what is not, with what to do."""

import importlib.util
import resource
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from tunewarden.app import App, inventory, open_app, recover, scratch_directory, with_no_server
from tunewarden.cli import base_commands, waiting
from tunewarden.config import Config
from tunewarden.errors import Error
from tunewarden.registry import bases
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.serving import engine_keys


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    is_well: bool
    what: str
    found: str


def examine(settings: Config, *, is_deep: bool) -> Iterator[Finding]:
    """Look at everything that can be seen without changing anything; deep: at every model's places."""
    yield Finding(True, "SQLite", f"{apsw.sqlite_lib_version()}, bundled")  # noqa: FBT003
    try:
        app = open_app(settings)
    except Error as error:
        yield Finding(False, "data directory", error.message)  # noqa: FBT003
        return
    yield _integrity(app.database.peek("PRAGMA quick_check"))
    yield from _private(settings)
    try:
        yield Finding(True, "scratch", f"{scratch_directory(settings)}, in memory")  # noqa: FBT003
    except Error as error:
        yield Finding(False, "scratch", error.message)  # noqa: FBT003
    local = [base for base in bases.list_all(app.database) if base.kind is BaseKind.LOCAL]
    has_torch = importlib.util.find_spec("torch") is not None
    yield Finding(
        has_torch or not local,
        "embedded engine",
        "installed" if has_torch else "not installed: pip install 'tunewarden[local]'",
    )
    running = waiting.door_to_running(settings)
    yield Finding(True, "server", "running" if running else "not running")  # noqa: FBT003
    for base in local if running else []:
        yield Finding(running is not None and running.answers(base.name), "base", base.name)
    for base in bases.list_all(app.database):
        if base.kind is BaseKind.REMOTE:
            yield _engine_at(settings, base)
    if is_deep:
        yield from _remnants(app, is_running=running is not None)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Finding(files >= 1024, "open files", f"{files} allowed; 1024 or more are needed")


def _engine_at(settings: Config, base: Base) -> Finding:
    key = engine_keys.read(settings.engine_keys, base.name)
    where = engine_keys.path_of(settings.engine_keys, base.name)
    advice = f"Put its API key into {where} and start anew."
    try:
        base_commands.model_at(base.location, base.engine_model, key, advice)
    except Error as error:
        return Finding(False, "remote base", f"{base.name}: {error.message}")  # noqa: FBT003
    return Finding(True, "remote base", f"{base.name} at {base.location}")  # noqa: FBT003


def _remnants(app: App, *, is_running: bool) -> Iterator[Finding]:
    """Look for what should not be there, in every place of the inventory."""
    count = 0
    for remnant in inventory(app).remnants(is_running=is_running):
        count += 1
        advice = "; `tunewarden doctor --sweep` erases it" if remnant.can_be_swept else ""
        yield Finding(False, remnant.place, remnant.what + advice)  # noqa: FBT003
    if not count:
        yield Finding(True, "remnants", "none in any place of the inventory")  # noqa: FBT003


def sweep(settings: Config) -> int:
    """Erase what a crash or a restore left; return how many there were. Raises Error(CONFLICT)."""
    with with_no_server(settings):
        app = open_app(settings, migrate=True)
        recover(app)
        return inventory(app).sweep()


def _integrity(row: tuple[object, ...] | None) -> Finding:
    found = str(row[0]) if row else "no answer"
    return Finding(found == "ok", "database", found)


def _private(settings: Config) -> Iterator[Finding]:
    """Secrets must be readable by their owner alone."""
    for path in (settings.data, settings.owner_key, settings.keyring, settings.signing_key):
        if not path.exists():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        found = f"mode {mode:04o}" + ("" if mode & 0o077 == 0 else f": run chmod go= {path}")
        yield Finding(mode & 0o077 == 0, path.name, found)
