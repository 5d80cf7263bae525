"""What the members of a bulk deletion were answered: one that was passed over stays so, however often it is asked again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewarden.db.database import Tx
from tunewarden.deletion.bulk import bulk_rows
from tunewarden.deletion.bulk.bulk_rows import Refusal
from tunewarden.deletion.requests import MISSING
from tunewarden.errors import Error, Kind
from tunewarden.registry.artifacts import ArtifactKind


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The refusals of one bulk deletion, kept with its Idempotency-Key; `places` are its members' in the request."""

    bulk_id: str
    places: Mapping[str, int]

    def of(self, tx: Tx, wanted: Sequence[tuple[ArtifactKind, str]]) -> dict[str, Error]:
        """Return the refusals of those, by their ids, that were passed over."""
        by_place = {self.places[artifact_id]: (kind, artifact_id) for kind, artifact_id in wanted}
        kept = bulk_rows.refusals(tx, self.bulk_id, list(by_place))
        return {
            by_place[place][1]: _error(*by_place[place], refusal) for place, refusal in kept.items()
        }

    def keep(self, tx: Tx, refused: Mapping[str, Error]) -> None:
        """Store why members are passed over, in the transaction that did so."""
        bulk_rows.note_refusals(
            tx,
            self.bulk_id,
            {self.places[artifact_id]: _refusal(error) for artifact_id, error in refused.items()},
        )


def _refusal(error: Error) -> Refusal:
    # That nothing was found is said without it: an unknown id is whatever a client sent.
    is_named = error.kind is not Kind.NOT_FOUND
    return Refusal(error.kind.value, error.code, error.message if is_named else "")


def _error(kind: ArtifactKind, artifact_id: str, refusal: Refusal) -> Error:
    if refusal.kind == Kind.NOT_FOUND:
        return MISSING[kind](artifact_id)
    return Error(Kind(refusal.kind), refusal.message, code=refusal.code)
