"""Whether a JSON schema has a value that ends: one whose required parts refer back to it does not.

A model that is held to such a schema would write until its tokens are used up.
"""

from collections import defaultdict
from typing import Any, TypeGuard
from urllib.parse import unquote

ENDLESS = (
    "no finite JSON value follows it, because a required part of it refers to itself without end"
)
# Parts that are looked at, those that are looked at again included. A larger schema is not decided.
PARTS_MAX = 20_000
DEPTH_MAX = 64


class _Undecided(Exception):
    """The schema is too large."""


def has_finite_value(schema: Any) -> bool:
    """Return whether a finite value may follow a schema; True if that is not clear.

    Keywords that are not looked at (`not`, `if` and others) can only forbid more.
    """
    try:
        return _Search(schema).run()
    except _Undecided:
        return True


class _Search:
    """Finds the referred parts with a finite value: first those that need no others, then those that need these."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._finite: set[str] = set()
        self._seen = 0
        # References that the part in hand needs and that are not known to be finite.
        self._needs: set[str] = set()

    def run(self) -> bool:
        """Return whether the whole has one."""
        needed_by: defaultdict[str, set[str]] = defaultdict(set)
        waiting = dict.fromkeys(["#"])
        known = set(waiting)
        while waiting:
            at = next(iter(waiting))
            del waiting[at]
            self._needs = set()
            if self._is_finite(self._target(at), 0):
                if at == "#":
                    return True
                self._finite.add(at)
                waiting.update(dict.fromkeys(needed_by.pop(at, ())))
                continue
            for needed in self._needs:
                needed_by[needed].add(at)
            waiting.update(dict.fromkeys(self._needs - known))
            known |= self._needs
        return False

    def _is_finite(self, one: Any, depth: int) -> bool:
        self._seen += 1
        if self._seen > PARTS_MAX or depth > DEPTH_MAX:
            raise _Undecided
        if not isinstance(one, dict):
            return True
        if "$ref" in one:
            return self._is_referred_finite(one["$ref"])
        for key in ("anyOf", "oneOf"):
            if _parts(one, key) and not any(self._are_finite(_parts(one, key), depth)):
                return False
        if not all(self._are_finite(_parts(one, "allOf"), depth)):
            return False
        return "const" in one or "enum" in one or self._has_value_of_a_type(one, depth)

    def _has_value_of_a_type(self, one: dict[str, Any], depth: int) -> bool:
        named = one.get("type")
        kinds = set(named) if _is_texts(named) else {named}
        if not kinds <= {"object", "array"}:
            return True
        return ("object" in kinds and self._has_object(one, depth)) or (
            "array" in kinds and self._has_array(one, depth)
        )

    def _is_referred_finite(self, reference: Any) -> bool:
        if not isinstance(reference, str) or not reference.startswith("#"):
            return True
        if reference in self._finite:
            return True
        self._needs.add(reference)
        return False

    def _are_finite(self, parts: list[Any], depth: int) -> list[bool]:
        """Look at all of them, so that all that they need is known."""
        return [self._is_finite(part, depth + 1) for part in parts]

    def _has_object(self, one: dict[str, Any], depth: int) -> bool:
        properties = one.get("properties")
        required = one.get("required")
        if not isinstance(properties, dict) or not isinstance(required, list):
            return True
        names = [name for name in required if isinstance(name, str) and name in properties]
        return all(self._are_finite([properties[name] for name in names], depth))

    def _has_array(self, one: dict[str, Any], depth: int) -> bool:
        least = one.get("minItems")
        if not isinstance(least, int | float) or least < 1:
            return True
        first = _parts(one, "prefixItems")
        needed = [*first[: int(min(least, len(first)))]]
        if least > len(first):
            needed.append(one.get("items"))
        return all(self._are_finite(needed, depth))

    def _target(self, reference: str) -> Any:
        """Return what a reference names; None, which anything follows, if that is not clear."""
        found = self._root
        for name in reference[1:].split("/")[1:]:
            key = unquote(name).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(key)
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                return None
        return None if found is self._root and reference != "#" else found


def _parts(one: dict[str, Any], key: str) -> list[Any]:
    found = one.get(key)
    return found if isinstance(found, list) else []


def _is_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
