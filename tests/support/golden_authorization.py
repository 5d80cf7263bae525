"""The golden table of who may do what, in a width that a reviewer reads: written out of statuses, and read back."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunewarden.identity.policy import SCOPES

WIDTH_MAX = 140
INVALID = ("no key", "garbage", "revoked", "expired")
# Columns with a status for each of several callers, which is written once if all have the same.
SHARED = {
    "project": ("member", "viewer", "outside"),
    "account": ("account owner", "account member", "account none"),
}
UNRESTRICTED = ("owner", *(one for some in SHARED.values() for one in some), "admin key")
PREFIX = "api."
HEAD = ("target", "no valid key", "owner", *SHARED, "admin key", "by scope")
INDENT = "    "
HEADER = """\
# Who may do what, as a status code: each route, on each kind of target, for each kind of caller.
#
# "in": admitted, and what follows is the engine's answer. Targets: "elsewhere" is in another project of the organization,
# "foreign" in another organization. "no valid key": without a key, with one that is garbage, one that was revoked, one that
# has expired. "owner" of the organization; "project": a reader of the organization who is a member of the project, a viewer,
# and not in it; "account": a service account with the role owner, member, and none. "by scope": with an Owner's key that is
# restricted to one scope, written without its "api."; first the scopes that get another status than the rest.
# Written by: pytest tests/api/test_authorization.py --update-golden
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One route on one kind of target: each caller's status."""

    route: str
    target: str
    found: Mapping[str, str]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table: below each route, its targets."""
    cells = [HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    by_route: dict[str, list[str]] = {"route": [_line(HEAD, widths)]}
    for row in rows:
        by_route.setdefault(row.route, []).append(_line(_cells(row), widths))
    for route, lines in by_route.items():
        yield route
        yield from lines


def read(path: Path) -> list[Row]:
    """Return the rows of a written table."""
    _, written = path.read_text("utf-8").split("[with a key]\n")
    found: list[Row] = []
    route = ""
    for line in written.splitlines()[2:]:
        if line.startswith(INDENT):
            found.append(_row(route, line.split("|")))
        else:
            route = line
    return found


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"{INDENT}{' | '.join(padded)}".rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    invalid = "/".join(dict.fromkeys(row.found[name] for name in INVALID))
    shared = (_shared([row.found[name] for name in names]) for names in SHARED.values())
    return row.target, invalid, row.found["owner"], *shared, row.found["admin key"], _by_scope(row)


def _shared(statuses: Sequence[str]) -> str:
    return statuses[0] if len(set(statuses)) == 1 else "/".join(statuses)


def _by_scope(row: Row) -> str:
    """Return the rarer statuses with their scopes, and the one that all the others get."""
    counts = Counter(row.found[scope] for scope in SCOPES)
    *rare, (rest, _) = reversed(counts.most_common())
    if not rare:
        return rest
    named = (f"{status} {' '.join(_scopes_of(row, status))}" for status, _ in rare)
    return f"{'; '.join(named)}; else {rest}"


def _scopes_of(row: Row, status: str) -> list[str]:
    found = sorted(scope for scope in SCOPES if row.found[scope] == status)
    return [scope.removeprefix(PREFIX) for scope in found]


def _row(route: str, cells: Sequence[str]) -> Row:
    target, invalid, owner, *several, admin, by_scope = (cell.strip() for cell in cells)
    assert "/" not in invalid, f"{route}: not every key that is not valid gets the same"
    *rare, rest = by_scope.split("; ")
    found = dict.fromkeys(SCOPES, rest.removeprefix("else "))
    for group in rare:
        status, *scopes = group.split(" ")
        found |= {f"{PREFIX}{scope}": status for scope in scopes}
    found |= {**dict.fromkeys(INVALID, invalid), "owner": owner, "admin key": admin}
    for names, cell in zip(SHARED.values(), several, strict=True):
        statuses = cell.split("/") if "/" in cell else [cell] * len(names)
        found |= dict(zip(names, statuses, strict=True))
    return Row(route, target, found)
