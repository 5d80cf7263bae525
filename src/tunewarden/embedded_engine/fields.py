"""Parses the parameters of a request body one by one, with OpenAI's error messages."""

from collections.abc import Mapping
from typing import Any, TypeVar

from tunewarden.invalid_values import NAMES, invalid, joined, shown, wrong_type

T = TypeVar("T")


class Fields:
    """The parameters not parsed yet. Null is the same as absent."""

    def __init__(self, entries: dict[str, Any], within: str = "") -> None:
        self._entries = dict(entries)
        self._within = within

    def path(self, name: str) -> str:
        """Return a parameter's full name, such as `stream_options.include_usage`."""
        return joined(self._within, name)

    def take(self, name: str) -> Any:
        """Return a parameter's value, or None."""
        return self._entries.pop(name, None)

    def required(self, name: str) -> Any:
        """Return a required value."""
        value = self.take(name)
        if value is None:
            path = self.path(name)
            message = f"Missing required parameter: '{path}'."
            raise invalid(message, path, "missing_required_parameter")
        return value

    def text(self, name: str) -> str | None:
        """Return a string, or None."""
        return typed(self.take(name), str, self.path(name))

    def flag(self, name: str) -> bool:
        """Return a boolean; absent is false."""
        return bool(typed(self.take(name), bool, self.path(name)))

    def integer(self, name: str, low: int, high: int | None = None) -> int | None:
        """Return an integer within bounds, or None."""
        value = typed(self.take(name), int, self.path(name))
        bounded(value, low, high, self.path(name), "integer")
        return value

    def decimal(self, name: str, low: float, high: float, default: float) -> float:
        """Return a number within bounds."""
        value = self.take(name)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            value = float(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            bounded(value, low, high, self.path(name), "decimal")
        value = typed(value, float, self.path(name))
        bounded(value, low, high, self.path(name), "decimal")
        return default if value is None else value

    def ignore(self, *names: str) -> None:
        """Accept parameters that have no effect here."""
        for name in names:
            self.take(name)

    def refuse(self, *names: str, instead: str = "") -> None:
        """Refuse parameters that the embedded engine does not support; `instead` tells what to use."""
        for name in names:
            if self.take(name) not in (None, [], {}, False):
                path = self.path(name)
                message = f"Unsupported parameter: '{path}' is not supported with this model."
                raise invalid(_with(message, instead), path, "unsupported_parameter")

    def refuse_but(self, name: str, harmless: Any, instead: str = "") -> None:
        """Refuse a parameter unless its value asks for the default behaviour; `instead` tells what to use."""
        value = self.take(name)
        if value is not None and (
            value != harmless or isinstance(value, bool) != isinstance(harmless, bool)
        ):
            path = self.path(name)
            message = (
                f"Unsupported value: '{path}' does not support {shown(value)} with this model."
                f" Only {shown(harmless)} is supported."
            )
            raise invalid(_with(message, instead), path, "unsupported_value")

    def finish(self, instead: Mapping[str, str] | None = None) -> None:
        """Refuse all remaining parameters; `instead` tells for some what to use."""
        for name, value in self._entries.items():
            if value is None:
                continue
            path = self.path(name)
            message, hint = (
                f"Unrecognized request argument supplied: {path}",
                (instead or {}).get(name),
            )
            raise invalid(f"{message}. {hint}" if hint else message, path, "unknown_parameter")


def _with(message: str, hint: str) -> str:
    return f"{message} {hint}" if hint else message


def typed(value: Any, kind: type[T], path: str) -> T | None:
    """Return the value, or None for None. Raises Error(INVALID) if it is of another type."""
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise wrong_type(path, NAMES[kind], value)
    return value


def bounded(value: float | None, low: float, high: float | None, path: str, kind: str) -> None:
    """Refuse a number outside its bounds; None bounds nothing."""
    if value is None:
        return
    if value < low:
        message = (
            f"Invalid '{path}': {kind} below minimum value."
            f" Expected a value >= {low}, but got {shown(value)} instead."
        )
        raise invalid(message, path, f"{kind}_below_min_value")
    if high is not None and value > high:
        message = (
            f"Invalid '{path}': {kind} above maximum value."
            f" Expected a value <= {high}, but got {shown(value)} instead."
        )
        raise invalid(message, path, f"{kind}_above_max_value")
