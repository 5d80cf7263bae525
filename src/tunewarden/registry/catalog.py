"""The bases and models that a caller can see: the operations behind `/v1/models`."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

from tunewarden.db.database import Database
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import alias_rows, bases, models, usage
from tunewarden.registry.alias_rows import Alias
from tunewarden.registry.artifacts import Artifact
from tunewarden.registry.bases import Base, OtherName
from tunewarden.registry.models import Model
from tunewarden.registry.usage import ModelUse

PAGE_SIZE = 1000


Found = Base | OtherName | Model | Alias


def retrieve(database: Database, caller: Caller, model_id: str) -> Found:
    """Return a base, a model that the caller can see, or an alias. Raises Error(FORBIDDEN, NOT_FOUND)."""
    authorize(caller, Action.READ_MODELS)
    base = bases.find(database, model_id)
    if base is not None:
        return base if base.name == model_id else OtherName(model_id, base)
    found: Found | None = models.find(database, caller, model_id)
    if found is None:
        with database.read() as tx:
            found = alias_rows.find(tx, caller.organization_id, model_id)
    if found is None:
        raise models.missing(model_id)
    return found


def usage_of(
    database: Database, caller: Caller, model_id: str, is_served: Callable[[Artifact], bool]
) -> ModelUse:
    """Return how the caller's organization used a base or a model that the caller can see.

    `is_served` sees requests on a model that are running: it is used now. Raises Error(FORBIDDEN, NOT_FOUND).
    """
    found = retrieve(database, caller, model_id)
    if isinstance(found, Alias):
        raise models.missing(model_id)  # each of its models has a use of its own
    name = found.id if isinstance(found, Model) else _base_of(found).name
    with database.read() as tx:
        used = usage.of_model(tx, caller.organization_id, name)
        if isinstance(found, Model) and is_served(found):
            used = replace(used, last_used_at=tx.now_micros)
        return used


def everything(
    database: Database,
    caller: Caller,
    *,
    after: str | None = None,
    limit: int | None = None,
    with_aliases: bool = False,
) -> Iterator[Found]:
    """Return the bases, each followed by its other names, then the models, that follow the id `after`; then aliases.

    Lazy, in constant memory; `limit` is how many the caller will take. Aliases only if they are asked for: who deletes
    what a list shows must not meet them. Raises Error(FORBIDDEN, INVALID).
    """
    authorize(caller, Action.READ_MODELS)
    found = _bases(database)
    names = [one.name for one in found]
    if after in names:
        found, after = found[names.index(after) + 1 :], None
    elif after is not None:
        found = []
    # Before the first page: a cursor must be refused before the response begins.
    start = models.position(database, caller, after)
    size = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit)
    pages = models.pages(database, caller, start=start, size=size)
    return chain(
        found, chain.from_iterable(pages), _aliases(database, caller) if with_aliases else ()
    )


def _aliases(database: Database, caller: Caller) -> Iterator[Alias]:
    after: str | None = None
    while True:
        with database.read() as tx:
            page = alias_rows.page(tx, caller.organization_id, after=after, limit=PAGE_SIZE)
        yield from page
        if len(page) < PAGE_SIZE:
            return
        after = page[-1].name


def _base_of(found: Base | OtherName) -> Base:
    return found.base if isinstance(found, OtherName) else found


def _bases(database: Database) -> list[Base | OtherName]:
    others: dict[str, list[str]] = defaultdict(list)
    for name, base_name in bases.other_names(database):
        others[base_name].append(name)
    found: list[Base | OtherName] = []
    for base in bases.list_all(database):
        found.append(base)
        found += [OtherName(name, base) for name in others[base.name]]
    return found
