"""The `metadata` of a request: pairs of strings, within OpenAI's bounds."""

from typing import Final

from tunewarden.embedded_engine.fields import Fields, typed
from tunewarden.invalid_values import invalid, joined

PAIRS_MAX: Final = 16
KEY_CHARACTERS_MAX: Final = 64
VALUE_CHARACTERS_MAX: Final = 512
NAME: Final = "metadata"


def parse_metadata(fields: Fields) -> dict[str, str]:
    """Return the pairs; a pair whose value is null is absent. Raises Error(INVALID)."""
    given = typed(fields.take(NAME), dict, NAME) or {}
    pairs: dict[str, str] = {name: one for name, one in given.items() if one is not None}
    if len(pairs) > PAIRS_MAX:
        text = f"Invalid '{NAME}': too many properties. Expected at most {PAIRS_MAX}, but got {len(pairs)} instead."
        raise invalid(text, NAME, "object_above_max_properties")
    for name, one in pairs.items():
        path = joined(NAME, name)
        if len(name) > KEY_CHARACTERS_MAX:
            text = (
                f"Invalid '{NAME}': a key is too long. Expected at most {KEY_CHARACTERS_MAX} characters, but got"
                f" {len(name)} in '{path}' instead."
            )
            raise invalid(text, NAME, "string_above_max_length")
        if len(one) > VALUE_CHARACTERS_MAX:
            text = (
                f"Invalid '{path}': string too long. Expected at most {VALUE_CHARACTERS_MAX} characters, but got"
                f" {len(one)} instead."
            )
            raise invalid(text, path, "string_above_max_length")
    return pairs
