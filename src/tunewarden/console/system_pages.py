"""The system: what serves the models, how full the disk is, and each setting with its source.

Every organization's Owners may see it, so it shows no path, address or text of the configuration: those are the
operator's, and `tunewarden config show` prints them on the server's machine.
"""

import json
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from tunewarden import __version__, config
from tunewarden.config import SETTINGS, Config
from tunewarden.console import rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.engines.adapter_states import EMBEDDED
from tunewarden.errors import Error
from tunewarden.identity.policy import Action, authorize
from tunewarden.registry import bases, replicas
from tunewarden.registry.bases import Base
from tunewarden.registry.replicas import Replica
from tunewarden.settings import Source


@dataclass(frozen=True, slots=True)
class ServedBase:
    """A base with its engines by name, each with its state. Not what is loaded: that includes other organizations'."""

    base: Base
    engines: list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """A setting of this server; `value` is None where only the operator may see it, `source` where it is not known."""

    name: str
    value: str | None
    source: str | None


def show_system(visit: Visit) -> Response:
    """Return what serves, and the settings."""
    caller, of = visit.caller, visit.operations
    authorize(caller, Action.READ_SYSTEM)
    values = {
        "version": __version__,
        "disk": of.floor.state(),
        "served": _served(visit),
        "settings": _settings(visit),
    }
    return rendering.page(visit, "system.html", values)


def _served(visit: Visit) -> list[ServedBase]:
    of = visit.operations
    answering = visit.asked.services.engines_seen.look(of.adapter_states, of.clock)
    found = []
    for base in bases.list_all(of.database):
        engines = [
            (one.name, _state(one, is_answering=answering.get(f"{base.name}/{one.name}")))
            for one in replicas.of(of.database, base.name)
        ]
        if not engines:
            is_up = answering.get(f"{base.name}/{EMBEDDED}", False)
            engines = [(EMBEDDED, "ready" if is_up else "unreachable")]
        found.append(ServedBase(base, engines))
    return found


def _state(replica: Replica, *, is_answering: bool | None) -> str | None:
    """Return a replica's state; None if it was not asked: it is new, or no models are pushed to it."""
    if replica.leaving_at is not None:
        return "leaving"
    if is_answering is None:
        return None
    return "ready" if is_answering else "unreachable"


def _settings(visit: Visit) -> list[ShownSetting]:
    values = visit.operations.config
    try:
        read, sources = config.load(data=values.data), config.sources(data=values.data)
    except Error:  # the file was changed since the start, and is not valid any more
        read, sources = None, {}
    started = _started(values)
    flagged: dict[str, str] = started.get("settings", {})
    shown = []
    for name, setting in SETTINGS.items():
        value = getattr(values, name)
        if setting.has_flag:
            # A worker does not know with which flags its server was started: the server has noted it.
            known = {
                "port": visit.asked.request.scope["server"][1],
                "workers": started.get("workers"),
            }
            text = None if known.get(name) is None else setting.shown(known[name])
            shown.append(ShownSetting(name, text, flagged.get(name)))
            continue
        source = source_of(name, value, None if read is None else getattr(read, name), sources)
        is_plain = isinstance(setting.default, bool | int | float) or bool(setting.choices)
        shown.append(ShownSetting(name, setting.shown(value) if is_plain else None, source))
    return shown


def _started(values: Config) -> dict[str, Any]:
    """Return what the server noted of itself when it started; nothing if that cannot be read."""
    try:
        noted = json.loads((values.run / "server.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def source_of(name: str, value: object, read: object, sources: dict[str, Source]) -> str:
    """Return where a value is from; `read` is what the configuration says now."""
    if value == read:
        return str(sources[name])
    # A worker accepts no more than it has descriptors for (`server.worker.within`).
    if (
        name == "connections_max"
        and isinstance(read, int)
        and isinstance(value, int)
        and value < read
    ):
        return f"{sources[name]} ({read}), as far as the limit on open files allows"
    return "changed since the start"


PAGES = (Page("GET", "/console/system", show_system),)
