"""The system: what serves the models, how full the disk is, and each setting with its source.

Every organization's Owners may see it, so it shows no path, address or text of the configuration: those are the
operator's, and `tunewarden config show` prints them on the server's machine.
"""

from collections import defaultdict
from dataclasses import dataclass

from starlette.responses import Response

from tunewarden import __version__, config
from tunewarden.config import SETTINGS
from tunewarden.console import rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.engines.adapter_states import AdapterCount
from tunewarden.errors import Error
from tunewarden.identity.policy import Action, authorize
from tunewarden.registry import bases, replicas
from tunewarden.registry.bases import Base
from tunewarden.registry.replicas import Replica


@dataclass(frozen=True, slots=True)
class ServedBase:
    """A base with its engines; `counts` are of models by state, by the name of the replica."""

    base: Base
    replicas: tuple[Replica, ...]
    counts: dict[str, list[AdapterCount]]


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
    database = visit.operations.database
    counts: dict[tuple[str, str], list[AdapterCount]] = defaultdict(list)
    for one in visit.operations.adapter_states.counts():
        counts[one.base, one.replica].append(one)
    found = []
    for base in bases.list_all(database):
        of_base = replicas.of(database, base.name)
        by_name = {one.name: counts[base.name, one.name] for one in of_base}
        found.append(ServedBase(base, of_base, by_name))
    return found


def _settings(visit: Visit) -> list[ShownSetting]:
    values = visit.operations.config
    try:
        read, sources = config.load(data=values.data), config.sources(data=values.data)
    except Error:  # the file was changed since the start, and is not valid any more
        read, sources = None, {}
    shown = []
    for name, setting in SETTINGS.items():
        value = getattr(values, name)
        if setting.has_flag:
            # A worker does not know with which flags its server was started.
            shown.append(ShownSetting(name, None, None))
            continue
        is_as_read = read is not None and getattr(read, name) == value
        source = str(sources[name]) if is_as_read else "changed since the start"
        is_plain = isinstance(setting.default, bool | int | float) or bool(setting.choices)
        shown.append(ShownSetting(name, setting.shown(value) if is_plain else None, source))
    return shown


PAGES = (Page("GET", "/console/system", show_system),)
