"""The rows of an alias's forms: a model and its weight each, read, and shown again with which one is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from tunewarden.console.requests import Fields, Sent, whole_number
from tunewarden.errors import Error, Kind
from tunewarden.registry.alias_rows import AliasTarget
from tunewarden.registry.aliases import WEIGHT_MAX

# The weight of an alias's only model.
WHOLE = 1
NOTHING = Sent(None)


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is shown. `sent` has what is wrong with it, if it is this row."""

    model: str
    weight: str
    sent: Sent = NOTHING


def weights(form: Fields) -> dict[str, int]:
    """Return the weight of each model in the form's rows. Raises Error(INVALID)."""
    found: dict[str, int] = {}
    for row in _of(form):
        name, typed = row.model.strip(), whole_number("weight", row.weight)
        if name in found:
            said = f"The form names '{name}' twice. Name each model once."
            raise Error(Kind.INVALID, said, param="model")
        if name and not 1 <= (WHOLE if typed is None else typed) <= WEIGHT_MAX:
            said = f"A weight must be a whole number from 1 to {WEIGHT_MAX}."
            raise Error(Kind.INVALID, said, param="weight")
        if name:
            found[name] = WHOLE if typed is None else typed
    if not found:
        raise Error(Kind.INVALID, "Name at least one model.", param="model")
    return found


def shown(sent: Sent, targets: Sequence[AliasTarget], blank: int) -> list[Row]:
    """Return the rows of a form: what an alias points to and blank ones, or those that were refused."""
    refused = sent.refused
    if refused is None:
        there = [Row(one.model_id, str(one.weight)) for one in targets]
        return there + [Row("", "")] * blank
    rows = _of(refused.form)
    rows += [Row("", "")] * (len(targets) + blank - len(rows))
    place = _wrong(rows, refused.param, refused.message)
    rows[place] = replace(rows[place], sent=sent)
    return rows


def _wrong(rows: Sequence[Row], param: str | None, message: str) -> int:
    """Return the place of the row that a refusal is about: of two that are the same the later, else the first."""
    for place in reversed(range(len(rows))):
        row = rows[place]
        if param == "weight" and not _is_weight(row.weight):
            return place
        if param == "model" and row.model and f"'{row.model.strip()}'" in message:
            return place
    return 0


def _is_weight(typed: str) -> bool:
    try:
        found = whole_number("weight", typed)
    except Error:
        return False
    return found is None or 1 <= found <= WEIGHT_MAX


def _of(form: Fields) -> list[Row]:
    pairs = zip_longest(form.get("model", []), form.get("weight", []), fillvalue="")
    return [Row(model, weight) for model, weight in pairs]
