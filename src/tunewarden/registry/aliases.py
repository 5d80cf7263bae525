"""Aliases: stable names of an organization for its models, which applications use as `model`.

A switch is one transaction, and holds on every worker from its answer on. Versions are the history; a rollback is a
new version that repeats an earlier one. Deleting never follows an alias.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import shown
from tunewarden.registry import alias_rows, artifacts, bases, models
from tunewarden.registry.alias_rows import Alias, AliasTarget, AliasVersion
from tunewarden.registry.artifacts import ArtifactKind, State

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
WEIGHT_MAX = 1_000_000
TARGETS_MAX = 16
ALIASES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Aliases:
    """The operations on aliases."""

    database: Database

    def set(self, caller: Caller, name: str, weights: dict[str, int], *, is_new: bool) -> Alias:
        """Create an alias, or switch one: by model, its weight. Idempotent: the same again is no new version.

        Raises Error(FORBIDDEN), Error(NOT_FOUND) for a model or an alias, Error(CONFLICT) for a name that is taken,
        Error(INVALID).
        """
        authorize(caller, Action.WRITE_ALIASES)
        _check_weights(weights)
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.WRITE_ALIASES)
            targets = [_target(tx, caller, model, weight) for model, weight in weights.items()]
            found = alias_rows.find(tx, caller.organization_id, name)
            if is_new:
                self._check_name(tx, caller, name, found)
                n = alias_rows.insert(tx, caller.organization_id, name)
            elif found is None:
                raise missing(name)
            else:
                n = found.n
                if set(found.current.targets) == set(targets):
                    return found
            return _change(tx, caller, n, name, targets)

    def roll_back(self, caller: Caller, name: str, version: int | None) -> Alias:
        """Point an alias to what an earlier version pointed to, without one to the version before.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(CONFLICT) if a model of that version was deleted or archived.
        """
        authorize(caller, Action.WRITE_ALIASES)
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.WRITE_ALIASES)
            found = alias_rows.find(tx, caller.organization_id, name)
            if found is None:
                raise missing(name)
            wanted = found.current.version - 1 if version is None else version
            earlier = alias_rows.version_of(tx, found.n, wanted)
            if earlier is None or wanted >= found.current.version:
                raise Error(
                    Kind.NOT_FOUND,
                    f"The alias '{name}' has no earlier version {wanted}.",
                    param="version",
                    code="alias_version_not_found",
                )
            try:
                targets = [_target(tx, caller, one.model_id, one.weight) for one in earlier.targets]
            except Error as error:
                raise Error(
                    Kind.CONFLICT,
                    f"A model of version {wanted} of '{name}' cannot be used any more. {error.message}",
                    code="alias_target_gone",
                ) from error
            return _change(tx, caller, found.n, name, targets)

    def end(self, caller: Caller, name: str) -> None:
        """Delete an alias; no model. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
        authorize(caller, Action.WRITE_ALIASES)
        with self.database.write(below_floor=True) as tx:
            keys.authorize_now(tx, caller, Action.WRITE_ALIASES)
            found = alias_rows.find(tx, caller.organization_id, name)
            if found is None:
                raise missing(name)
            alias_rows.end(tx, found.n)
            _record(tx, caller, audit.EventType.ALIAS_DELETED, name)

    def find(
        self,
        caller: Caller,
        name: str,
        *,
        before: int | None = None,
        limit: int = alias_rows.VERSIONS_SHOWN_MAX,
    ) -> tuple[Alias, list[AliasVersion]]:
        """Return an alias and up to `limit` of its versions, newest first; with `before`, only those before that one.

        Raises Error(FORBIDDEN), Error(NOT_FOUND).
        """
        authorize(caller, Action.READ_MODELS)
        with self.database.read() as tx:
            found = alias_rows.find(tx, caller.organization_id, name)
            if found is None:
                raise missing(name)
            return found, alias_rows.versions(tx, found.n, before=before, limit=limit)

    def page(self, caller: Caller, *, after: str | None, limit: int) -> list[Alias]:
        """Return the organization's aliases by name. Raises Error(FORBIDDEN)."""
        authorize(caller, Action.READ_MODELS)
        with self.database.read() as tx:
            return alias_rows.page(tx, caller.organization_id, after=after, limit=limit)

    def _check_name(self, tx: Tx, caller: Caller, name: str, found: Alias | None) -> None:
        """Check that a name can become an alias: it takes no base's, and no id that the organization ever had (I7)."""
        if not NAME.fullmatch(name):
            raise Error(
                Kind.INVALID,
                "Invalid alias: use 1 to 128 letters, digits, dots, colons, dashes and underscores, a letter or digit"
                " first.",
                param="name",
            )
        kind = ArtifactKind.MODEL
        is_id = artifacts.find_any(tx, kind, caller.organization_id, name) is not None
        if found is not None or is_id or bases.exists(tx, name):
            what = "an alias" if found else "a model of your organization" if is_id else "a base"
            raise Error(
                Kind.CONFLICT,
                f"The name '{name}' is {what}'s, or was."
                if is_id
                else f"'{name}' is {what} already.",
                param="name",
                code="name_taken",
            )
        if alias_rows.count(tx, caller.organization_id) >= ALIASES_MAX:
            raise Error(
                Kind.QUOTA_EXCEEDED,
                f"Your organization has {ALIASES_MAX} aliases, which is the limit. Delete some.",
                code="too_many_aliases",
            )


def take_out(tx: Tx, model_n: int, actor: audit.Actor, *, changed_by: str) -> None:
    """Let no alias point to a model: in the transaction that commits its forced deletion (D3).

    An alias that pointed to nothing else ends.
    """
    for organization_id, name in alias_rows.that_point_to(tx, model_n):
        found = alias_rows.find(tx, organization_id, name)
        assert found is not None, "it points to the model"
        left = [one for one in found.current.targets if one.model_n != model_n]
        event = audit.EventType.ALIAS_SWITCHED
        if left:
            alias_rows.add_version(tx, found.n, left, changed_by=changed_by)
        else:
            alias_rows.end(tx, found.n)
            event = audit.EventType.ALIAS_DELETED
        audit.record(
            tx, event, organization_id=organization_id, actor=actor, resource_id=name, forced=True
        )


def missing(name: str) -> Error:
    """Return the error for an alias that is unknown or foreign (I9)."""
    return Error(
        Kind.NOT_FOUND,
        f"The alias '{shown(name)}' does not exist.",
        param="name",
        code="alias_not_found",
    )


def is_alias(found: Alias) -> Error:
    """Return the error for deleting an alias as if it was a model."""
    named = ", ".join(one.model_id for one in found.current.targets)
    return Error(
        Kind.CONFLICT,
        f"'{found.name}' is an alias of {named}. Deleting never follows an alias: delete the model by its id, or the"
        f" alias with DELETE /v1/aliases/{found.name}.",
        param="model",
        code="is_alias",
    )


def _target(tx: Tx, caller: Caller, model_id: str, weight: int) -> AliasTarget:
    found = artifacts.find_any(tx, ArtifactKind.MODEL, caller.organization_id, model_id)
    if (
        found is None
        or found.state is not State.ACTIVE
        or not models.is_seen_by(tx, caller, found.n)
    ):
        raise models.missing(model_id)
    return AliasTarget(found.n, found.id, weight)


def _change(
    tx: Tx, caller: Caller, alias_n: int, name: str, targets: Sequence[AliasTarget]
) -> Alias:
    version = alias_rows.add_version(tx, alias_n, targets, changed_by=caller.key_id)
    event = audit.EventType.ALIAS_CREATED if version == 1 else audit.EventType.ALIAS_SWITCHED
    _record(tx, caller, event, name, models=[one.model_id for one in targets])
    found = alias_rows.find(tx, caller.organization_id, name)
    assert found is not None, "it was changed in this transaction"
    return found


def _check_weights(weights: dict[str, int]) -> None:
    if not 1 <= len(weights) <= TARGETS_MAX:
        raise Error(Kind.INVALID, f"Name 1 to {TARGETS_MAX} models in 'targets'.", param="targets")
    if not all(1 <= weight <= WEIGHT_MAX for weight in weights.values()):
        raise Error(
            Kind.INVALID,
            f"A weight must be a whole number from 1 to {WEIGHT_MAX}.",
            param="targets",
        )


def _record(tx: Tx, caller: Caller, event: audit.EventType, name: str, **details: object) -> None:
    audit.record(
        tx,
        event,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=name,
        **details,
    )
