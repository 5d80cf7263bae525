"""The source's ids of models become aliases of the models that were made again, and back.

What an alias was before is noted before it is changed, so that a rollback restores it, and touches nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewarden.errors import Error, Kind
from tunewarden.migration import retrain
from tunewarden.migration.state import Object, State
from tunewarden.migration.target import Aliases

NAME = "switch"
SWITCHED, ROLLED_BACK, REFUSED, PLANNED = "switched", "rolled back", "refused", "planned"
# What is wrong with one alias; anything else ends the command.
OF_ONE_ALIAS = frozenset({Kind.INVALID, Kind.NOT_FOUND, Kind.CONFLICT})


@dataclass(frozen=True, slots=True)
class Switched:
    """What became of one alias: its name is the source's id. Without a version there is none."""

    name: str
    model: str | None
    status: str
    version: int | None = None
    reason: str | None = None


@dataclass(slots=True)
class Switching:
    """Points aliases to models, and back."""

    aliases: Aliases
    state: State
    is_dry_run: bool
    _entries: Object = field(init=False)

    def __post_init__(self) -> None:
        self._entries = (self.state.read(NAME) or {}).get("aliases", {})

    @property
    def noted(self) -> list[str]:
        """The aliases that were switched, and not rolled back."""
        return list(self._entries)

    def switch(self, name: str, model: str) -> Switched:
        """Let requests for a model of the source be served by a model here. Raises Error."""
        try:
            return self._switch(name, model)
        except Error as error:
            return _refused(name, model, error)

    def roll_back(self, name: str) -> Switched:
        """Restore what a name was before it was switched. Raises Error."""
        entry = self._entries.get(name)
        if entry is None:
            return Switched(name, None, REFUSED, reason="it was not switched by this migration")
        try:
            return self._roll_back(name, entry)
        except Error as error:
            return _refused(name, entry["model"], error)

    def _switch(self, name: str, model: str) -> Switched:
        found = self.aliases.find(name)
        if found is not None and _means(found, model):
            return Switched(name, model, SWITCHED, found["version"])
        before = None if found is None else found["version"]
        if self.is_dry_run:
            return Switched(name, model, PLANNED, before)
        earlier = self._entries.get(name)
        self._note(name, {"model": model, "before": before})
        try:
            made = self.aliases.set(name, model, is_new=found is None)
        except Error as error:
            # A request of a killed command may have come in between.
            now = self.aliases.find(name) if error.kind is Kind.CONFLICT else None
            if now is None or not _means(now, model):
                if error.kind in OF_ONE_ALIAS:
                    self._note(name, earlier)
                raise
            made = now
        return Switched(name, model, SWITCHED, made["version"])

    def _roll_back(self, name: str, entry: Object) -> Switched:
        found, before = self.aliases.find(name), entry["before"]
        is_back = before is None if found is None else _is_as_in(found, before)
        if not is_back and not _means(found, entry["model"]):
            return Switched(
                name,
                entry["model"],
                REFUSED,
                reason="it was changed since, and stays as it is; `tunewarden aliases show` has its history",
            )
        if self.is_dry_run:
            return Switched(name, entry["model"], PLANNED, before)
        version = before
        if not is_back and before is None:
            self._delete(name)
        elif not is_back:
            version = self.aliases.roll_back(name, before)["version"]
        self._note(name, None)
        return Switched(name, entry["model"], ROLLED_BACK, version)

    def _delete(self, name: str) -> None:
        """Delete an alias, unless a request of a killed command did in between."""
        try:
            self.aliases.delete(name)
        except Error as error:
            if error.kind is not Kind.NOT_FOUND:
                raise

    def _note(self, name: str, entry: Object | None) -> None:
        self._entries.pop(name, None)
        if entry is not None:
            self._entries[name] = entry
        self.state.write(NAME, {"aliases": self._entries})


def made_again(
    found: Mapping[str, Any], state: State, chosen: Sequence[str]
) -> dict[str, str | None]:
    """Return the chosen models of the source (without a choice, those made again), each with its model here."""
    made = retrain.models_made(state)
    names = {job["fine_tuned_model"]: made.get(job["id"]) for job in found["jobs"]}
    if chosen:
        return {name: names.get(name) for name in chosen}
    return {name: model for name, model in names.items() if name and model}


def _means(alias: Object | None, model: str) -> bool:
    return alias is not None and [one["model"] for one in alias["targets"]] == [model]


def _is_as_in(alias: Object, version: int | None) -> bool:
    """Return whether an alias points to what it did in a version of it."""
    earlier = [one["targets"] for one in alias["history"] if one["version"] == version]
    return alias["targets"] in earlier


def _refused(name: str, model: str | None, error: Error) -> Switched:
    if error.kind not in OF_ONE_ALIAS:
        raise error
    return Switched(name, model, REFUSED, reason=error.message.removesuffix("."))
