"""Bodies of requests: JSON objects with known fields. Null means absent."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, TypeVar

from fastapi import Depends
from starlette.requests import Request

from tunewarden.api.parameters import read_object
from tunewarden.artifacts.strict_json import shown
from tunewarden.errors import Error, Kind

Choice = TypeVar("Choice", bound=StrEnum)


class Body:
    """The fields of a request's body. Each method raises Error(INVALID), naming the field."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = {name: value for name, value in fields.items() if value is not None}

    def check(self, *known: str, not_offered: Mapping[str, str] | None = None) -> None:
        """Check that there are no other fields; `not_offered` names some of OpenAI's and why they are refused."""
        for name in self._fields:
            if not_offered is not None and name in not_offered:
                raise Error(
                    Kind.INVALID,
                    f"'{name}' is not offered by this server: {not_offered[name]} Omit it.",
                    param=name,
                    code="not_offered",
                )
            if name not in known:
                raise Error(
                    Kind.INVALID,
                    f"Unrecognized request argument supplied: {shown(name)}.",
                    param=name[:64] or None,
                )

    def text(self, name: str) -> str | None:
        """Return a text, or None if it is absent."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            raise Error(Kind.INVALID, f"'{name}' must be a string.", param=name)
        return value

    def required_text(self, name: str) -> str:
        """Return a text that must be there."""
        value = self.text(name)
        if value is None:
            raise Error(Kind.INVALID, f"Missing required parameter: '{name}'.", param=name)
        return value

    def one_of(self, name: str, kind: type[Choice]) -> Choice | None:
        """Return a choice of an enum, or None if it is absent."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return kind(value)
        except ValueError as error:
            allowed = ", ".join(f"'{one.value}'" for one in kind)
            raise Error(
                Kind.INVALID,
                f"Invalid value for '{name}': {shown(value)}. Supported values are: {allowed}.",
                param=name,
                code="invalid_value",
            ) from error

    def required_one_of(self, name: str, kind: type[Choice]) -> Choice:
        """Return a choice of an enum that must be there."""
        self.required_text(name)
        found = self.one_of(name, kind)
        assert found is not None, "it is there"
        return found

    def whole_number(self, name: str) -> int | None:
        """Return a whole number, or None if it is absent."""
        value = self._fields.get(name)
        if value is not None and type(value) is not int:
            raise Error(Kind.INVALID, f"'{name}' must be a whole number.", param=name)
        return value

    def flag(self, name: str) -> bool:
        """Return a truth value; false if it is absent."""
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            raise Error(Kind.INVALID, f"'{name}' must be true or false.", param=name)
        return value

    def texts(self, name: str) -> list[str] | None:
        """Return a list of texts, or None if it is absent."""
        value = self._fields.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise Error(Kind.INVALID, f"'{name}' must be an array of strings.", param=name)
        return list(value)

    def objects(self, name: str) -> list["Body"] | None:
        """Return a list of objects, or None if it is absent."""
        value = self._fields.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise Error(Kind.INVALID, f"'{name}' must be an array of objects.", param=name)
        return [Body(one) for one in value]


async def _body(request: Request) -> Body:
    # The SDK sends no body where a call has no fields.
    length = request.headers.get("content-length")
    if length in {None, "0"} and "transfer-encoding" not in request.headers:
        return Body({})
    return Body(await read_object(request))


InBody = Annotated[Body, Depends(_body)]
