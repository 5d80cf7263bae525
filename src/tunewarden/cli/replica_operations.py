"""The engines of remote bases, on the server's machine: adding a base with its replicas, and adding and removing one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tunewarden.app import App
from tunewarden.cli import engine_lookup
from tunewarden.cli.client import Object
from tunewarden.cli.engine_lookup import PushedBase
from tunewarden.config import Config
from tunewarden.deletion import leaving
from tunewarden.engines import keys
from tunewarden.engines.address import Address
from tunewarden.engines.port import RemoteControl
from tunewarden.engines.tls import ClientTls
from tunewarden.errors import Error, Kind
from tunewarden.registry import artifacts, bases, members, replicas
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.replicas import Replica

POLL_SECONDS = 0.2
ADVICE = "Give its API key with --engine-key-file."


@dataclass(frozen=True, slots=True)
class _Found:
    """What answers at a URL: the model's name there, and what adapters may be; None if it takes none."""

    url: str
    key: str | None
    engine_model: str
    pushed: PushedBase | None

    @property
    def rank_max(self) -> int | None:
        return None if self.pushed is None else self.pushed.base.rank_max

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {} if self.pushed is None else self.pushed.base.shapes or {}


def add_remote_base(
    settings: Config, app: App, name: str, engines: Sequence[tuple[str, Path | None]]
) -> None:
    """Register a base whose replicas are at these URLs. Raises Error."""
    found = [_looked_up(settings, url, name, key_file) for url, key_file in engines]
    first = found[0]
    with app.database.write() as tx:
        bases.add(
            tx,
            name=name,
            kind=BaseKind.REMOTE,
            location=first.url,
            engine_model=first.engine_model,
            modules=first.shapes,
            rank_max=first.rank_max,
        )
        base = Base(
            name, BaseKind.REMOTE, "", first.engine_model, "", tx.now_micros, first.rank_max
        )
        # Inside the transaction: if a key file cannot be written, the base is not created.
        keys.keep(settings.engine_keys, name, replicas.FIRST, first.key)
        for other in found[1:]:
            _check_alike(base, first.shapes, other)
            added = replicas.add(tx, base=name, url=other.url, rank_max=other.rank_max)
            keys.keep(settings.engine_keys, name, added.name, other.key)
    if first.pushed is None:
        click.echo(
            f"Note: the server at {first.url} runs without tunewarden-vllm, so '{name}' cannot have fine-tuned models.",
            err=True,
        )


def add_replica(
    settings: Config, app: App, base_name: str, engine: tuple[str, Path | None], name: str | None
) -> Replica:
    """Add an engine, a URL and its key file, to a remote base; requests go to it at once. Raises Error."""
    base = _remote(app, base_name)
    found = _looked_up(settings, engine[0], base.engine_model, engine[1])
    _check_alike(base, base.module_shapes(), found)
    _check_takes_models(app, found)
    with app.database.write() as tx:
        rank_max = found.rank_max if base.is_pushed_to else None
        added = replicas.add(tx, base=base_name, url=found.url, rank_max=rank_max, name=name)
        keys.keep(settings.engine_keys, base_name, added.name, found.key)
    return added


def remove_replica(
    settings: Config, app: App, base_name: str, name: str, *, drain_seconds: float
) -> int:
    """Remove an engine when nothing runs on it, or after `drain_seconds`; return how many models it evicted.

    Raises Error(NOT_FOUND, UNAVAILABLE).
    """

    def drained(control: RemoteControl) -> None:
        deadline = app.clock.monotonic() + drain_seconds
        while control.running() and app.clock.monotonic() < deadline:
            app.clock.sleep(POLL_SECONDS)

    evicted = leaving.remove_replica(app.database, app.remote_control, (base_name, name), drained)
    keys.keep(settings.engine_keys, base_name, name, None)
    return evicted


def listed(settings: Config, app: App, base_name: str | None) -> list[Object]:
    """Return the replicas of a base, or of all. Raises Error(NOT_FOUND)."""
    if base_name is not None:
        _remote(app, base_name)
    return [
        shown(settings, app, one)
        for one in replicas.list_all(app.database)
        if base_name in {None, one.base}
    ]


def shown(settings: Config, app: App, one: Replica) -> Object:
    """Return a replica as JSON shows it. `lease`: of an engine that adapters are pushed to, once it had one."""
    member = members.newest(app.database, one.n)
    return {
        "id": f"{one.base}/{one.name}",
        "object": "replica",
        "base": one.base,
        "name": one.name,
        "url": one.url,
        "rank_max": one.rank_max,
        "is_leaving": one.leaving_at is not None,
        "has_engine_key": keys.has(settings.engine_keys, one.base, one.name),
        "lease": member
        and {
            "state": member.state.value,
            "since": (member.ended_at or member.joined_at) // 1_000_000,
        },
    }


def _remote(app: App, name: str) -> Base:
    base = bases.find(app.database, name)
    if base is None or base.kind is not BaseKind.REMOTE:
        raise Error(Kind.NOT_FOUND, f"There is no remote base named '{name}'.", param="base")
    return base


def _looked_up(settings: Config, url: str, name: str, key_file: Path | None) -> _Found:
    address = Address.of_url(url)
    key = None if key_file is None else keys.given(key_file)
    if key is not None and address.is_open_to_readers:
        click.echo(
            f"Warning: the API key is sent to {address.host} without TLS, with each request, and so"
            " are prompts and answers. Use an https:// URL.",
            err=True,
        )
    tls = ClientTls(settings.certificates, accepts_public=True)
    pushed = engine_lookup.pushed_base_at(url, name, key, ADVICE, tls)
    model = pushed.base.name if pushed else engine_lookup.model_at(url, name, key, ADVICE, tls)
    return _Found(url.rstrip("/"), key, model, pushed)


def _check_takes_models(app: App, found: _Found) -> None:
    """Refuse an engine that was removed earlier: it refuses the models that it evicted. Raises Error(CONFLICT)."""
    refused = () if found.pushed is None else found.pushed.tombstones
    if any(artifacts.is_active_in_engines(app.database, name) for name in refused):
        raise Error(
            Kind.CONFLICT,
            f"The vLLM at {found.url} was a replica before, and refuses the models that it evicted. Start it anew first.",
        )


def _check_alike(base: Base, shapes: dict[str, tuple[int, int]], found: _Found) -> None:
    """Refuse an engine that cannot serve each model of a base. Raises Error(INVALID)."""
    why = None
    if found.engine_model != base.engine_model:
        why = f"serves '{found.engine_model}', not '{base.engine_model}'"
    elif base.rank_max is not None and found.rank_max is None:
        why = "runs without tunewarden-vllm, so it cannot serve the fine-tuned models of this base"
    elif base.rank_max is not None and found.shapes != shapes:
        why = "has other layers than the base"
    elif base.rank_max is not None and (found.rank_max or 0) < base.rank_max:
        why = f"serves adapters up to rank {found.rank_max} only; the base promises {base.rank_max}: raise --max-lora-rank"
    if why is not None:
        raise Error(Kind.INVALID, f"The server at {found.url} {why}.", param="engine_url")
