"""Declared lineage: what an Owner says in a model's metadata that it was trained on, for models that were not trained here.

`trained_on` names files and models by their ids, with commas or spaces between them. Ids that are not known here, such as
those of another server, stay words.
"""

import re
from collections.abc import Mapping

from tunewarden.db.database import Tx
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller
from tunewarden.registry import artifacts, lineage, models
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.models import Model

MEMBER = "trained_on"
_BETWEEN = re.compile(r"[\s,]+")


def declare(tx: Tx, caller: Caller, model: Model, metadata: Mapping[str, str]) -> None:
    """Store what metadata declare of a model's origins, in the transaction that stores them.

    Erasing a file with what learned from it follows this, so that only an Owner may change it: raises Error(FORBIDDEN).
    """
    named = {name for name in _BETWEEN.split(metadata.get(MEMBER, "")) if name}
    found = {n for name in named if (n := _seen(tx, caller, name)) is not None}
    if lineage.declare(tx, model.n, found - {model.n}):
        keys.authorize_now(tx, caller, Action.DELETE)


def _seen(tx: Tx, caller: Caller, artifact_id: str) -> int | None:
    """Return the number of a file or a model that the caller can see, in any state."""
    file = artifacts.find_any(tx, ArtifactKind.FILE, caller.organization_id, artifact_id)
    if file is not None:
        return file.n if file.project_id == caller.project_id else None
    model = artifacts.find_any(tx, ArtifactKind.MODEL, caller.organization_id, artifact_id)
    return model.n if model is not None and models.is_seen_by(tx, caller, model.n) else None
