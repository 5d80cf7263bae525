"""Base models: their names, locations, and the layers that an adapter may change.

A local base is a Hugging Face directory that the embedded engine serves; a remote one is one or several servers
with the OpenAI API, its replicas (`replicas.py`). Remote servers that speak the engine protocol too serve fine-tuned models:
their adapters are pushed to them. Bases belong to all organizations and are never deleted (I8).
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunewarden import audit
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import organizations
from tunewarden.registry import alias_rows, replicas

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Other names may have slashes, as ids on hubs have. No segment has dots only: clients remove those from a path.
OTHER_NAME = re.compile(r"(?!.{129})(?!.*(?:^|/)\.+(?:/|$))[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
# The base whose name, or other name, is :name.
_NAMED = "name = COALESCE((SELECT base FROM base_names WHERE name = :name), :name)"
COLUMNS = "name, kind, location, engine_model, modules, created_at, rank_max"


class BaseKind(StrEnum):
    """Which kind of engine serves a base."""

    LOCAL = "local"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Base:
    """A base model. `engine_model` is its name in its engines; `created_at` is in microseconds.

    `location` is the directory of a local one; a remote one has none. `rank_max` is the highest rank of the adapters that
    are pushed to its engines; None if none are.
    """

    name: str
    kind: BaseKind
    location: str
    engine_model: str
    modules: str
    created_at: int
    rank_max: int | None = None

    @property
    def is_pushed_to(self) -> bool:
        """Whether its engines are remote and serve the adapters that are pushed to it."""
        return self.rank_max is not None

    def module_shapes(self) -> dict[str, tuple[int, int]]:
        """Return module path -> (out features, in features); empty for a base without adapters."""
        return {path: (out, into) for path, (out, into) in json.loads(self.modules).items()}


@dataclass(frozen=True, slots=True)
class OtherName:
    """A base under another name of it."""

    name: str
    base: Base


def add(
    tx: Tx,
    *,
    name: str,
    kind: BaseKind,
    location: str,
    engine_model: str,
    modules: dict[str, tuple[int, int]],
    rank_max: int | None = None,
) -> Base:
    """Register a base; the location of a remote one is the URL of its first replica.

    Raises Error(INVALID) for a bad name, Error(CONFLICT) for one in use, also as an alias.
    """
    if not NAME.fullmatch(name) or name.startswith("ft"):
        raise Error(
            Kind.INVALID,
            "Invalid base name: use 1 to 64 letters, digits, dots, dashes and underscores; it must"
            " not begin with 'ft'.",
            param="name",
        )
    directory = location if kind is BaseKind.LOCAL else ""
    base = Base(name, kind, directory, engine_model, json.dumps(modules), tx.now_micros, rank_max)
    _check_free(tx, name)
    tx.run(
        f"INSERT INTO bases ({COLUMNS}) VALUES (:name, :kind, :location, :engine_model, :modules, :now, :rank_max)",
        name=name,
        kind=kind.value,
        location=directory,
        engine_model=engine_model,
        modules=base.modules,
        now=tx.now_micros,
        rank_max=rank_max,
    )
    if kind is BaseKind.REMOTE:
        replicas.add(tx, base=name, url=location, rank_max=rank_max)
    audit.record(
        tx,
        audit.EventType.BASE_ADDED,
        organization_id="",
        actor=audit.SERVER,
        resource_id=name,
        kind=kind.value,
    )
    return base


def also_name(tx: Tx, base: str, name: str) -> None:
    """Give a base another name. Idempotent.

    Raises Error(INVALID) for a bad name, Error(NOT_FOUND) for an unknown base, Error(CONFLICT) for a name in use.
    """
    _check_other_name(name)
    if tx.row("SELECT 1 FROM bases WHERE name = :base", base=base) is None:
        raise Error(Kind.NOT_FOUND, f"There is no base named '{base}'.", param="base")
    if tx.row("SELECT 1 FROM base_names WHERE name = :name AND base = :base", name=name, base=base):
        return
    _check_free(tx, name)
    tx.run("INSERT INTO base_names (name, base) VALUES (:name, :base)", name=name, base=base)
    audit.record(
        tx,
        audit.EventType.BASE_NAMED,
        organization_id="",
        actor=audit.SERVER,
        resource_id=base,
        also_named=name,
    )


def check_other_name(database: Database, name: str) -> None:
    """Check that a new base can have another name. Raises Error(INVALID), Error(CONFLICT)."""
    _check_other_name(name)
    with database.read() as tx:
        _check_free(tx, name)


def find(database: Database, name: str) -> Base | None:
    """Return the base that `name` is the name or another name of, or None."""
    row = database.peek(f"SELECT {COLUMNS} FROM bases WHERE {_NAMED}", name=name)
    return _base(row) if row else None


def exists(tx: Tx, name: str) -> bool:
    """Return whether `name` is a base's name or another name of one."""
    return tx.row(f"SELECT 1 FROM bases WHERE {_NAMED}", name=name) is not None


def list_all(database: Database) -> list[Base]:
    """Return every base, oldest first."""
    with database.read() as tx:
        return [
            _base(row) for row in tx.rows(f"SELECT {COLUMNS} FROM bases ORDER BY created_at, name")
        ]


def other_names(database: Database) -> list[tuple[str, str]]:
    """Return other names of bases, each with its base's name."""
    with database.read() as tx:
        rows = tx.rows("SELECT name, base FROM base_names ORDER BY name")
    return [(str(name), str(base)) for name, base in rows]


def local(database: Database) -> list[Base]:
    """Return the bases that the embedded engine serves, oldest first."""
    return [base for base in list_all(database) if base.kind is BaseKind.LOCAL]


def _check_other_name(name: str) -> None:
    if not OTHER_NAME.fullmatch(name):
        raise Error(
            Kind.INVALID,
            "Invalid other name: use up to 128 letters, digits, dots, dashes, underscores, and slashes between them.",
            param="also_named",
        )


def _check_free(tx: Tx, name: str) -> None:
    """Check that no base has the name, and no alias: its requests would go to the base. Raises Error(CONFLICT)."""
    if exists(tx, name):
        raise Error(Kind.CONFLICT, f"A base named '{name}' already exists. Choose another name.")
    holders = [organizations.name_of(tx, one) for one in alias_rows.organizations_with(tx, name)]
    if holders:
        raise Error(
            Kind.CONFLICT,
            f"'{name}' is an alias of the organization {', '.join(holders)}, whose requests would go to the base."
            " Choose another name, or let an Owner there delete the alias.",
        )


def _base(row: tuple[Any, ...]) -> Base:
    name, kind, *rest = row
    return Base(name, BaseKind(kind), *rest)
