"""Which models are old: the criteria of retention rules and of bulk deletions. Pure: no I/O.

A model's checkpoints go with it, so a candidate is a model with its checkpoints; a checkpoint whose model is gone is one
of its own. The latest of a name are the newest active ones of a project with the same base and suffix.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase

from tunewarden.errors import Error, Kind

DAY_MICROS = 24 * 3600 * 1_000_000
AGE_DAYS_MAX = 36_500
# What was used longer ago than usage is kept counts as never used.
UNUSED_DAYS_MAX = 1_000
KEEP_MAX = 100_000
NAME_LENGTH_MAX = 256
# The characters of suffixes, and what stands for any of them.
GLOB = re.compile(r"[A-Za-z0-9._*?-]{0,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What a model must be to be chosen: all that is set. `suffix` is a pattern with `*` and `?`."""

    base: str | None = None
    suffix: str | None = None
    project_id: str | None = None
    older_than_days: int | None = None
    unused_for_days: int | None = None
    keep_latest: int | None = None

    @property
    def are_empty(self) -> bool:
        """Whether every model meets them."""
        return all(getattr(self, field.name) is None for field in fields(self))

    @property
    def name_an_age(self) -> bool:
        """Whether they choose by age, use or order, and not by name only."""
        return (self.older_than_days, self.unused_for_days, self.keep_latest) != (None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model with its checkpoints, as the criteria see it; times are in microseconds.

    `last_used_at` is that of whichever was used last, None if none ever was; `is_served`: requests on one are running.
    """

    n: int
    id: str
    project_id: str
    base: str
    suffix: str
    created_at: int
    is_archived: bool = False
    last_used_at: int | None = None
    is_served: bool = False

    @property
    def name(self) -> tuple[str, str, str]:
        """What the latest are counted by."""
        return (self.project_id, self.base, self.suffix)


class ReasonCode(StrEnum):
    """Why a model is chosen (the first four) or spared; blockers of deletions have their own words."""

    OLDER_THAN = "older_than"
    UNUSED_FOR = "unused_for"
    NOT_LATEST = "not_latest"
    MATCHES = "matches"
    TOO_YOUNG = "too_young"
    IN_USE = "in_use"
    KEEP_LATEST = "keep_latest"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, as a code and as a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What the criteria say of a model: whether they choose it, and why.

    `ready_at` is when age and use choose it if it is not used again, in microseconds; `is_latest` if it is kept however
    old it is.
    """

    candidate: Candidate
    reasons: tuple[Reason, ...]
    is_chosen: bool
    is_latest: bool
    ready_at: int


def check(criteria: Criteria, *, param: str) -> None:
    """Check criteria that a client sent. Raises Error(INVALID)."""
    limits = {
        "older_than_days": AGE_DAYS_MAX,
        "unused_for_days": UNUSED_DAYS_MAX,
        "keep_latest": KEEP_MAX,
    }
    for name, most in limits.items():
        value = getattr(criteria, name)
        if value is not None and not 1 <= value <= most:
            said = f"'{name}' must be a whole number from 1 to {most}."
            raise Error(Kind.INVALID, said, param=f"{param}{name}")
    if criteria.suffix is not None and not GLOB.fullmatch(criteria.suffix):
        raise Error(
            Kind.INVALID,
            "'suffix' must be up to 64 letters, digits, dots, dashes and underscores, or * and ? for any of them.",
            param=f"{param}suffix",
        )
    for name in ("base", "project_id"):
        value = getattr(criteria, name)
        if value is not None and not 1 <= len(value) <= NAME_LENGTH_MAX:
            shown = name.removesuffix("_id")
            said = f"'{shown}' must have 1 to {NAME_LENGTH_MAX} characters."
            raise Error(Kind.INVALID, said, param=f"{param}{shown}")


def matches(criteria: Criteria, candidate: Candidate) -> bool:
    """Return whether the criteria are about a model at all, by its names."""
    return (
        criteria.base in {None, candidate.base}
        and criteria.project_id in {None, candidate.project_id}
        and (criteria.suffix is None or fnmatchcase(candidate.suffix, criteria.suffix))
    )


def choose(
    criteria: Criteria, candidates: Iterable[Candidate], now_micros: int
) -> Iterator[Choice]:
    """Yield what the criteria say of each model that they are about; `candidates` come newest first."""
    newer: Counter[tuple[str, str, str]] = Counter()
    for one in candidates:
        if not matches(criteria, one):
            continue
        is_latest = criteria.keep_latest is not None and newer[one.name] < criteria.keep_latest
        yield of(criteria, one, now_micros, is_latest=is_latest)
        newer[one.name] += not one.is_archived


def of(criteria: Criteria, one: Candidate, now_micros: int, *, is_latest: bool) -> Choice:
    """Return what the criteria say of one model that they are about."""
    used_at = one.created_at if one.last_used_at is None else max(one.last_used_at, one.created_at)
    if one.is_served:
        used_at = now_micros
    old = _age(one.created_at, criteria.older_than_days, now_micros, _AGE)
    unused = _age(used_at, criteria.unused_for_days, now_micros, _SERVED if one.is_served else _USE)
    ready_at = max([one.created_at, *(ready for ready, _ in (*old, *unused))])
    is_chosen = ready_at <= now_micros and not is_latest
    found = [reason for ready, reason in (*old, *unused) if (ready > now_micros) is not is_chosen]
    if is_latest:
        found.append(_latest(criteria))
    elif is_chosen and criteria.keep_latest is not None:
        found.append(_not_latest(criteria))
    if not found:
        found.append(Reason(ReasonCode.MATCHES, "It matches."))
    return Choice(one, tuple(found), is_chosen, is_latest, ready_at)


_AGE = (
    (ReasonCode.OLDER_THAN, "It is {age} days old, and {days} or more are chosen."),
    (ReasonCode.TOO_YOUNG, "It is {age} days old, and less than {days} are spared."),
)
_USE = (
    (ReasonCode.UNUSED_FOR, "It was not used for {age} days, and {days} or more are chosen."),
    (ReasonCode.IN_USE, "It was used or made {age} days ago, and less than {days} are spared."),
)
_SERVED = (
    _USE[0],
    (
        ReasonCode.IN_USE,
        "A request on it is running, and less than {days} days after its use it is spared.",
    ),
)


def _age(
    since: int,
    days: int | None,
    now_micros: int,
    said: tuple[tuple[ReasonCode, str], tuple[ReasonCode, str]],
) -> list[tuple[int, Reason]]:
    """Return when a time is so many days ago, and the reason that this gives now; nothing without a criterion."""
    if days is None:
        return []
    ready = since + days * DAY_MICROS
    code, text = said[ready > now_micros]
    age = max(0, now_micros - since) // DAY_MICROS
    return [(ready, Reason(code, text.format(age=age, days=days)))]


def _latest(criteria: Criteria) -> Reason:
    count = criteria.keep_latest
    which = "the newest" if count == 1 else f"one of the newest {count}"
    said = f"It is {which} with its name, which {'is' if count == 1 else 'are'} kept."
    return Reason(ReasonCode.KEEP_LATEST, said)


def _not_latest(criteria: Criteria) -> Reason:
    count = criteria.keep_latest
    there = "There is 1 newer one" if count == 1 else f"There are {count} newer ones"
    said = f"{there} with its name."
    return Reason(ReasonCode.NOT_LATEST, said)
