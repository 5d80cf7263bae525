"""Validates a job's method and hyperparameters, in OpenAI's ranges."""

import sys
from collections.abc import Mapping
from enum import StrEnum

from tunewarden.artifacts.strict_json import shown
from tunewarden.errors import Error, Kind

AUTO = "auto"
# JSON integers may exceed the range of a float.
UNBOUNDED = sys.float_info.max


class Method(StrEnum):
    """The training method, in OpenAI's words."""

    SUPERVISED = "supervised"
    DPO = "dpo"


# Name -> (is an integer, minimum, maximum); for floats the minimum is exclusive.
_RANGES: dict[str, tuple[bool, float, float]] = {
    "n_epochs": (True, 1, 50),
    "batch_size": (True, 1, 256),
    "learning_rate_multiplier": (False, 0, UNBOUNDED),
    "beta": (False, 0, 2),
}
NAMES = {
    Method.SUPERVISED: ("n_epochs", "batch_size", "learning_rate_multiplier"),
    Method.DPO: ("n_epochs", "batch_size", "learning_rate_multiplier", "beta"),
}
Values = dict[str, int | float | str]


def parse(method: object, deprecated: object) -> tuple[Method, Values]:
    """Return the method and all its hyperparameters, "auto" for missing ones.

    `method` and `deprecated` (the top-level `hyperparameters`) are raw; the block of a method
    that is not chosen is ignored. Raises Error(INVALID).
    """
    chosen, given = _chosen(method)
    values = _checked(_object(given, "method"), chosen, "method")
    older = _checked(_object(deprecated, "hyperparameters"), chosen, "hyperparameters")
    for name in values.keys() & older.keys():
        if values[name] != older[name]:
            raise Error(
                Kind.INVALID,
                f"'{name}' is given twice, in 'method' and in the deprecated 'hyperparameters',"
                " with different values. Give it in 'method'.",
                param="hyperparameters",
            )
    return chosen, {name: (older | values).get(name, AUTO) for name in NAMES[chosen]}


def _chosen(method: object) -> tuple[Method, object]:
    """Return the method and its raw hyperparameters."""
    if method is None:
        return Method.SUPERVISED, None
    fields = _object(method, "method")
    kind = fields.get("type")
    if kind == "reinforcement":
        raise Error(
            Kind.INVALID,
            "The method 'reinforcement' is not supported by this server. Supported: supervised, dpo.",
            param="method",
        )
    if not isinstance(kind, str) or kind not in set(Method):
        raise Error(
            Kind.INVALID,
            f"Unknown method type {shown(kind)}. Supported: supervised, dpo.",
            param="method",
        )
    known = {"type", "reinforcement", *Method}
    if unknown := sorted(fields.keys() - known):
        raise Error(Kind.INVALID, f"Unknown key {shown(unknown[0])} in 'method'.", param="method")
    block = _object(fields.get(kind), f"method.{kind}")
    if unknown := sorted(block.keys() - {"hyperparameters"}):
        raise Error(
            Kind.INVALID, f"Unknown key {shown(unknown[0])} in 'method.{kind}'.", param="method"
        )
    return Method(kind), block.get("hyperparameters")


def _object(value: object, where: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Error(Kind.INVALID, f"'{where}' must be an object.", param=where.partition(".")[0])
    return value


def _checked(given: Mapping[str, object], method: Method, param: str) -> Values:
    found: Values = {}
    for name, value in given.items():
        if name not in NAMES[method]:
            raise Error(
                Kind.INVALID,
                f"Unknown hyperparameter {shown(name)} for the method '{method}'."
                f" Known: {', '.join(NAMES[method])}.",
                param=param,
            )
        if value is None:
            continue
        found[name] = _value(name, value, param)
    return found


def _value(name: str, value: object, param: str) -> int | float | str:
    is_whole, least, most = _RANGES[name]
    if value == AUTO:
        return AUTO
    wanted = f"a whole number from {least:g} to {most:g}"
    if not is_whole:
        wanted = f"a number above {least:g}" + ("" if most == UNBOUNDED else f", up to {most:g}")
    if type(value) is int or (type(value) is float and not is_whole):
        is_enough = least <= value if is_whole else least < value
        if is_enough and value <= most:
            return value
    raise Error(Kind.INVALID, f"'{name}' must be \"auto\" or {wanted}.", param=param)
