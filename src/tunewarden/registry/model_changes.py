"""What an Owner may change of a model: archived (not served, reversible), protected (one more step to delete), metadata."""

from dataclasses import dataclass

from tunewarden import audit
from tunewarden.artifacts import sealed_text
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import alias_rows, artifacts, declared_lineage, metadata, models
from tunewarden.registry.artifacts import VISIBLE, ArtifactKind, State
from tunewarden.registry.models import Model
from tunewarden.webhooks import outbox
from tunewarden.webhooks.event_types import WebhookEventType


@dataclass(frozen=True, slots=True)
class Changes:
    """What to change; None: nothing. `metadata` replaces all of it, {} removes it."""

    archived: bool | None = None
    protected: bool | None = None
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ModelChanges:
    """Changes models, and reads their metadata."""

    database: Database
    keyring: Keyring

    def change(self, caller: Caller, model_id: str, changes: Changes) -> Model:
        """Change a model that the caller can see; return it. Idempotent: only what differs is audited.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(CONFLICT) for archiving what an alias means. Metadata that change
        what the model is declared to have been trained on are an Owner's.
        """
        authorize(caller, Action.WRITE_MODELS)
        found = models.find(self.database, caller, model_id)
        if found is None:
            raise models.missing(model_id)
        sealed = self._sealed(found, changes.metadata)
        with self.database.write() as tx:
            # What stops serving or protects is an Owner's decision, as deletion is.
            needed = Action.WRITE_MODELS if _is_metadata_only(changes) else Action.DELETE
            keys.authorize_now(tx, caller, needed)
            now = artifacts.find_any(tx, ArtifactKind.MODEL, caller.organization_id, model_id)
            if now is None or now.state not in VISIBLE:
                raise models.missing(model_id)
            _change(tx, caller, found, now.state, changes)
            if changes.metadata is not None:
                declared_lineage.declare(tx, caller, found, changes.metadata)
                models.set_metadata(tx, found.n, sealed)
                _record(tx, caller, audit.EventType.MODEL_DESCRIBED, model_id)
        return models.by_n(self.database, found.n)

    def metadata_of(self, model: Model) -> dict[str, str]:
        """Return a model's metadata; empty if it has none."""
        sealed = models.sealed_metadata(self.database, model.n)
        secret = sealed_text.keys_of(self.keyring, [model.key_id]).get(model.key_id)
        if sealed is None or secret is None:
            return {}
        return metadata.unseal(secret, model.internal_id, sealed)

    def _sealed(self, model: Model, given: dict[str, str] | None) -> bytes | None:
        if not given:
            return None
        try:
            return metadata.seal(self.keyring, model.key_id, model.internal_id, given)
        except KeyErased as error:
            raise models.missing(model.id) from error


def _is_metadata_only(changes: Changes) -> bool:
    return changes.archived is None and changes.protected is None


def _change(tx: Tx, caller: Caller, found: Model, state: State, changes: Changes) -> None:
    wanted = {True: State.ARCHIVED, False: State.ACTIVE, None: state}[changes.archived]
    if wanted is not state:
        if wanted is State.ARCHIVED:
            _check_aliases(tx, found)
        artifacts.set_archived(tx, found.n, is_archived=wanted is State.ARCHIVED)
        archived = wanted is State.ARCHIVED
        event = audit.EventType.MODEL_ARCHIVED if archived else audit.EventType.MODEL_UNARCHIVED
        _record(tx, caller, event, found.id)
        if archived:
            outbox.publish(tx, caller.organization_id, WebhookEventType.MODEL_ARCHIVED, found.id)
    if changes.protected is not None and models.set_protected(
        tx, found.n, is_protected=changes.protected
    ):
        event = (
            audit.EventType.MODEL_PROTECTED
            if changes.protected
            else audit.EventType.MODEL_UNPROTECTED
        )
        _record(tx, caller, event, found.id)


def _check_aliases(tx: Tx, found: Model) -> None:
    """Check that no alias means the model: its requests would fail. Raises Error(CONFLICT)."""
    names = [name for _, name in alias_rows.that_point_to(tx, found.n)]
    if names:
        raise Error(
            Kind.CONFLICT,
            f"'{found.id}' is what an alias means: {', '.join(names[:5])}. Point the alias to another model first.",
            code="alias_target",
        )


def _record(tx: Tx, caller: Caller, event: audit.EventType, model_id: str) -> None:
    audit.record(
        tx,
        event,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=model_id,
    )
