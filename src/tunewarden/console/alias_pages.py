"""Aliases: the list, and one alias with what it points to, its history, and the forms that change it."""

from collections.abc import Sequence

from starlette.responses import Response

from tunewarden.console import alias_targets, confirming, lists, rendering, tables
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit, whole_number
from tunewarden.console.shown import segment
from tunewarden.console.tables import Table
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, authorize
from tunewarden.registry import model_pages
from tunewarden.registry.alias_rows import Alias, AliasTarget, AliasVersion
from tunewarden.registry.aliases import TARGETS_MAX
from tunewarden.registry.artifacts import State
from tunewarden.registry.model_pages import Chosen

HERE = "/console/aliases"
# Rows of the form for further models.
MORE_ROWS = 2
# What only who proves who it is does: a model that no alias points to can be deleted.
PROVED = {
    "switch": "Switch the alias",
    "roll-back": "Roll the alias back",
    "remove": "Remove the alias",
}


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Alias], str | None]:
    found = visit.operations.aliases.page(visit.caller, after=after, limit=limit + 1)
    return lists.cut(found, lambda one: one.name, limit)


ALIASES = Table[Alias](
    "aliases",
    _read,
    {
        "name": lambda one: one.name,
        "models": lambda one: _weighted(one.current.targets),
        "version": lambda one: one.current.version,
        "changed_at": lambda one: tables.instant(one.current.changed_at),
    },
)


def _read_history(
    visit: Visit, after: str | None, limit: int
) -> tuple[Sequence[AliasVersion], str | None]:
    _, found = visit.operations.aliases.find(
        visit.caller,
        visit.asked.segments["alias"],
        before=whole_number("after", after or ""),
        limit=limit + 1,
    )
    return lists.cut(found, lambda one: str(one.version), limit)


HISTORY = Table[AliasVersion](
    "alias-history",
    _read_history,
    {
        "version": lambda one: one.version,
        "models": lambda one: _weighted(one.targets),
        "changed_at": lambda one: tables.instant(one.changed_at),
        "changed_by": lambda one: one.changed_by,
    },
)


def _weighted(targets: Sequence[AliasTarget]) -> str:
    return " ".join(f"{one.model_id}={one.weight}" for one in targets)


@tables.also_as(ALIASES)
def list_aliases(visit: Visit) -> Response:
    """Return a page of aliases by name, with the form that makes one."""
    _, values = ALIASES.page(visit)
    values |= {
        "targets": alias_targets.shown(visit.again(HERE), [], 1 + MORE_ROWS),
        "suggested": _suggested(visit),
        "write_action": Action.WRITE_ALIASES,
    }
    return rendering.page(visit, "aliases.html", values)


def create_alias(visit: Visit) -> Response:
    """Make an alias, and lead to it."""
    authorize(visit.caller, Action.WRITE_ALIASES)  # before what was typed is judged
    name = visit.asked.sent("name").strip()
    visit.operations.aliases.set(
        visit.caller, name, alias_targets.weights(visit.asked.form), is_new=True
    )
    return rendering.to(f"{HERE}/{segment(name)}")


@tables.also_as(HISTORY)
def show_alias(visit: Visit) -> Response:
    """Return one alias, with a page of its history."""
    name = visit.asked.segments["alias"]
    alias, _ = visit.operations.aliases.find(visit.caller, name, limit=1)
    _, values = HISTORY.page(visit)
    targets = alias.current.targets
    sent = visit.again(f"{HERE}/{segment(name)}", act="switch")
    values |= {
        "alias": alias,
        "sum": sum(one.weight for one in targets),
        "targets": alias_targets.shown(sent, targets, min(MORE_ROWS, TARGETS_MAX - len(targets))),
        "suggested": _suggested(visit),
        "write_action": Action.WRITE_ALIASES,
    }
    return rendering.page(visit, "alias.html", values)


@confirming.proved(PROVED)
def change_alias(visit: Visit) -> Response:
    """Point an alias to one other model or to several, or to what it pointed to before, or remove it."""
    aliases, name = visit.operations.aliases, visit.asked.segments["alias"]
    act = visit.asked.sent("act")
    if act == "switch":
        authorize(visit.caller, Action.WRITE_ALIASES)
        aliases.set(visit.caller, name, alias_targets.weights(visit.asked.form), is_new=False)
    elif act == "roll-back":
        aliases.roll_back(visit.caller, name, visit.asked.sent_number("version"))
    elif act == "remove":
        aliases.end(visit.caller, name)
        return rendering.to(HERE)
    else:
        raise Error(Kind.INVALID, "The form does not say what to do with the alias.")
    return rendering.back(visit, f"{HERE}/{segment(name)}")


def _suggested(visit: Visit) -> list[str]:
    """Return the newest models that an alias may point to."""
    chosen = Chosen(state=State.ACTIVE)
    found = model_pages.page(
        visit.operations.database, visit.caller, chosen, after=None, limit=lists.PAGE_ROWS
    )
    return [one.model.id for one in found.models]


PAGES = (
    Page("GET", HERE, list_aliases),
    Page("POST", HERE, create_alias),
    Page("GET", f"{HERE}/{{alias}}", show_alias),
    Page("POST", f"{HERE}/{{alias}}", change_alias),
)
