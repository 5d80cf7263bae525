"""Declared lineage: what an Owner says in a model's metadata that it was trained on, for models that were not trained here.

`trained_on` names files and models by their ids, with commas or spaces between them. Each must be one that the caller can
see, in any state: erasing a file follows these ids, and one that led nowhere would leave its model, without a word.
"""

import re
from collections.abc import Mapping

from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller
from tunewarden.ids import shown
from tunewarden.registry import alias_rows, artifacts, lineage, models
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.models import Model

MEMBER = "trained_on"
_BETWEEN = re.compile(r"[\s,]+")


def declare(tx: Tx, caller: Caller, model: Model, metadata: Mapping[str, str]) -> None:
    """Store what metadata declare of a model's origins, in the transaction that stores them.

    Erasing a file with what learned from it follows this, so that only an Owner may change it: raises Error(FORBIDDEN).
    Raises Error(INVALID) for an id that is not known here.
    """
    named = dict.fromkeys(name for name in _BETWEEN.split(metadata.get(MEMBER, "")) if name)
    # What is declared already stays so when the metadata are written again, by a key of another project too.
    declared = {artifacts.by_n(tx, n)[1].id: n for n in lineage.declared_origins_of(tx, model.n)}
    found = {declared[name] if name in declared else _seen(tx, caller, name) for name in named}
    if lineage.declare(tx, model.n, found - {model.n}):
        keys.authorize_now(tx, caller, Action.DELETE)


def _seen(tx: Tx, caller: Caller, artifact_id: str) -> int:
    """Return the number of a file or a model that the caller can see, in any state. Raises Error(INVALID)."""
    file = artifacts.find_any(tx, ArtifactKind.FILE, caller.organization_id, artifact_id)
    if file is not None and file.project_id == caller.project_id:
        return file.n
    model = artifacts.find_any(tx, ArtifactKind.MODEL, caller.organization_id, artifact_id)
    if model is not None and models.is_seen_by(tx, caller, model.n):
        return model.n
    if alias_rows.find(tx, caller.organization_id, artifact_id):
        said = f"'{artifact_id}' is an alias, which may mean another model tomorrow: name the model by its id."
    else:
        said = (
            f"'{shown(artifact_id)}' is neither a file of your project nor a model. Declare a file with a key of its"
            " project; an id of another server belongs in another member."
        )
    raise Error(
        Kind.INVALID, f"'{MEMBER}': {said}", param=f"metadata.{MEMBER}", code="origin_not_found"
    )
