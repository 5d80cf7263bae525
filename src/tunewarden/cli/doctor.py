"""The checks of `tunewarden doctor`, with remedies."""

import importlib.util
import resource
from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from tunewarden.app import App, inventory, open_app, scratch_directory
from tunewarden.artifacts.plain_memory import REMEDY
from tunewarden.canary import adapter, runs, schedule
from tunewarden.canary.runs import Result, Run
from tunewarden.cli import data_directory, engine_lookup, waiting
from tunewarden.cli.client import Client
from tunewarden.clock import SystemClock, from_micros, iso, to_micros
from tunewarden.config import Config
from tunewarden.deletion.retention import expiry_pause
from tunewarden.deletion.retention.expiry_pause import JUMP_MICROS
from tunewarden.engines import keys
from tunewarden.engines.tls import GATEWAY, ClientTls
from tunewarden.errors import Error
from tunewarden.exclusive_use import existing_with_no_server
from tunewarden.recovery_at_start import recover
from tunewarden.registry import bases, members, replicas
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.replicas import Replica
from tunewarden.server import start_checks
from tunewarden.transparency.key_files import KeyFiles


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `is_pending`: not yet as it will be, which is no failure."""

    is_well: bool
    what: str
    found: str
    is_pending: bool = False


def _well(what: str, found: str) -> Finding:
    return Finding(is_well=True, what=what, found=found)


def _wrong(what: str, found: str) -> Finding:
    return Finding(is_well=False, what=what, found=found)


def examine(settings: Config, *, is_deep: bool) -> Iterator[Finding]:
    """Run all read-only checks; if `is_deep`, also search every place of the inventory."""
    yield _well("SQLite", f"{apsw.sqlite_lib_version()}, bundled")
    try:
        app = open_app(settings)
    except Error as error:
        yield _wrong("data directory", error.message)
        return
    yield _integrity(app.database.peek("PRAGMA quick_check"))
    yield from _private(settings)
    yield Finding(
        app.floor.is_met(),
        "disk",
        f"{app.floor.state()}: {app.floor.free_bytes() >> 20} MiB free, the floor is {app.floor.floor_bytes >> 20} MiB",
    )
    try:
        yield _well("scratch", f"{scratch_directory(settings)}, in memory")
    except Error as error:
        yield _wrong("scratch", error.message)
    yield _swap(app)
    yield from _log(app)
    yield _expiry(app)
    local = [base for base in bases.list_all(app.database) if base.kind is BaseKind.LOCAL]
    has_torch = importlib.util.find_spec("torch") is not None
    yield Finding(
        has_torch or not local,
        "embedded engine",
        "installed" if has_torch else "not installed: pip install 'tunewarden[local]'",
    )
    is_running = data_directory.server_url(settings) is not None
    yield _well("server", "running" if is_running else "not running")
    if is_running:
        yield from _answering(settings, local)
    yield from _canaries(app, is_running=is_running)
    yield from _certificates(settings)
    for base in bases.list_all(app.database):
        for replica in replicas.of(app.database, base.name):
            yield _engine_at(settings, base, replica)
            if replica.is_pushed_to and is_running:
                yield _lease_of(app, replica)
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
        yield _wrong("base", error.message)


def _local_base(settings: Config, client: Client, name: str) -> Finding:
    if waiting.answers(client, name):
        return _well("base", name)
    seconds = data_directory.seconds_since_start(settings)
    if seconds < waiting.WAIT_SECONDS:
        found = f"{name} is loading; the server started {seconds:.0f} s ago"
        return Finding(is_well=True, what="base", found=found, is_pending=True)
    advice = "it may still be loading, or the server's log says why it cannot be"
    return _wrong("base", f"{name} does not answer: {advice}")


def _engine_at(settings: Config, base: Base, replica: Replica) -> Finding:
    key = keys.read(settings.engine_keys, base.name, replica.name)
    where = keys.path_of(settings.engine_keys, base.name, replica.name)
    advice = f"Put its API key into {where} and restart."
    try:
        tls = ClientTls(settings.certificates, accepts_public=True)
        engine_lookup.model_at(replica.url, base.engine_model, key, advice, tls)
        found = engine_lookup.pushed_base_at(replica.url, base.engine_model, key, advice, tls)
    except Error as error:
        return _wrong("remote base", f"{base.name}: {error.message}")
    if base.is_pushed_to and found is None:
        advice = (
            "it runs without tunewarden-vllm, so its fine-tuned models are not served or deleted"
        )
        return _wrong("remote base", f"{base.name}: {advice}")
    return _well("remote base", f"{base.name} at {replica.url}")


def _lease_of(app: App, replica: Replica) -> Finding:
    name, member = f"{replica.base}/{replica.name}", members.newest(app.database, replica.n)
    if member is None:
        return _wrong(
            "lease",
            f"{name} has had none: the server's log says why it serves no fine-tuned models",
        )
    if member.ended_at is None:
        return _well("lease", f"{name}: {member.state}, since {iso(from_micros(member.joined_at))}")
    since = iso(from_micros(member.ended_at))
    return _wrong(
        "lease", f"{name}: lapsed, since {since}. It serves no fine-tuned models until it answers"
    )


def _canaries(app: App, *, is_running: bool) -> Iterator[Finding]:
    interval = app.config.canary_seconds
    if not interval:
        yield _well(
            "canary",
            "off; canary_seconds = 3600 deletes a model of the server's each hour and looks for it",
        )
        return
    last, now = runs.last(app.database), to_micros(app.clock.now())
    for base in bases.list_all(app.database):
        if adapter.can_be_made(base):
            yield _canary(
                base.name, last.get(base.name), is_running=is_running, now=now, interval=interval
            )


def _canary(base: str, run: Run | None, *, is_running: bool, now: int, interval: float) -> Finding:
    if run is None:
        found = f"{base}: it has not run yet"
        return Finding(is_well=True, what="canary", found=found, is_pending=True)
    at, outcome = iso(from_micros(run.ended_at)), run.outcome
    if outcome.result is Result.FAILED:
        return _wrong("canary", f"{base}: FAILED at {at}: {'; '.join(outcome.found)}")
    is_overdue = is_running and runs.overdue_micros(run.not_passed_since, now, interval)
    if outcome.result is Result.NOT_DONE or is_overdue:
        since = iso(from_micros(run.not_passed_since))
        why = "; ".join(outcome.found) or "no run since"
        found = f"{base}: none has passed since {since}: {why}"
        return Finding(not is_overdue, "canary", found, is_pending=not is_overdue)
    return _well("canary", f"{base}: passed at {at}: {schedule.times(outcome)}")


def _certificates(settings: Config) -> Iterator[Finding]:
    if not settings.certificates.exists():
        return
    # It loads OpenSSL.
    from tunewarden.engines import certificates  # noqa: PLC0415  see above

    try:
        for one in certificates.kept(settings.certificates):
            ends = f"{one.name} ends {iso(one.ends_at)}"
            if not one.ends_within(SystemClock().now()):
                yield _well("certificate", ends)
            elif one.name == GATEWAY:
                yield _wrong("certificate", f"{ends}: run `tunewarden certificates renew`")
            else:
                yield _wrong("certificate", f"{ends}: make others (docs/how-to/vllm.md)")
    except Error as error:
        yield _wrong("certificate", error.message)


def _remnants(app: App, *, is_running: bool) -> Iterator[Finding]:
    """Search every place of the inventory for remnants."""
    count = 0
    for remnant in inventory(app).remnants(is_running=is_running):
        count += 1
        advice = "; `tunewarden doctor --sweep` erases it" if remnant.can_be_swept else ""
        yield _wrong(remnant.place, remnant.what + advice)
    if not count:
        yield _well("remnants", "none in any place of the inventory")


def sweep(settings: Config) -> int:
    """Erase leftovers of crashes and restores; return their number. Raises Error(CONFLICT)."""
    with existing_with_no_server(settings):
        app = open_app(settings, migrate=True)
        recover(app)
        return inventory(app).sweep()


def _swap(app: App) -> Finding:
    where = ", ".join(app.memory.places())
    if not where:
        return _well("swap", "memory is not swapped to a disk")
    if app.memory.swap_is_accepted:
        return _well("swap", f"plaintext weights may reach {where}, as accepted")
    return _wrong("swap", f"memory may be swapped to {where}: {REMEDY}")


def _log(app: App) -> Iterator[Finding]:
    """Open the log, which verifies its newest entries, its key and every rotation of that; not if opening would write."""
    if not (app.config.log / "checkpoint").exists():
        return
    if KeyFiles(app.config.signing_key).is_rotating():
        advice = "start the server, or run `tunewarden log rotate-key` again"
        yield _wrong("log", f"a rotation of its key was interrupted: {advice}")
        return
    try:
        log, signer = app.open_log()
        rotated = len(signer.chain.hand_overs)
        said = f"{log.size()} entries, key sha256:{signer.key.digest()}, rotated {rotated} times"
        yield _well("log", said)
    except Error as error:
        yield _wrong("log", error.message)


def _expiry(app: App) -> Finding:
    pause = expiry_pause.pause_of(app.database)
    if pause is None:
        return _well("expiry", "files and uploads expire in time")
    days = abs(pause.jumped_micros) / JUMP_MICROS
    said = f"the clock jumped {days:.1f} days ahead, or the server was off for as long"
    if pause.jumped_micros < 0:
        said = f"the clock was set {days:.1f} days back"
    return _wrong(
        "expiry",
        f"paused: {said}. Check the machine's clock, then run `tunewarden expiry resume`",
    )


def _integrity(row: tuple[object, ...] | None) -> Finding:
    found = str(row[0]) if row else "no answer"
    return Finding(found == "ok", "database", found)


def _private(settings: Config) -> Iterator[Finding]:
    """Search for files that other users can read."""
    found = list(start_checks.too_open(settings))
    for path, mode in found:
        yield _wrong(path.name, f"mode {mode:04o}: run chmod go= {path}")
    if not found:
        yield _well("modes", "only its owner can access the data directory")
