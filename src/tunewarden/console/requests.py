"""What the pages get: a request with its path, query and form, and, signed in, the session with its caller."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar
from urllib.parse import parse_qs

from starlette.requests import Request

from tunewarden.api.operations import Operations
from tunewarden.api.parameters import Context, read_body
from tunewarden.api.services import Services
from tunewarden.artifacts.strict_json import is_text
from tunewarden.console.guard import Way
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.identity.sessions import Session
from tunewarden.ids import shown

FORM = "application/x-www-form-urlencoded"
BODY_BYTES_MAX = 256 * 1024
FIELDS_MAX = 256
DIGITS_MAX = 18  # they fit into 64 bits

E = TypeVar("E", bound=StrEnum)
# The field of a form whose parameter of the API has another name: the one of these that the form has.
FIELD_OF = {
    "max_requests_per_1_minute": "requests",
    "max_tokens_per_1_minute": "tokens",
    "user_id": "person",
    "email": "person",
}
Fields = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the console, from anybody."""

    request: Request
    services: Services
    way: Way
    segments: Mapping[str, str]
    form: Fields = field(default_factory=dict)

    @property
    def operations(self) -> Operations:
        """The operations of the API."""
        return self.services.operations

    @property
    def request_id(self) -> str:
        """The id of the request."""
        return str(self.request.state.request_id)

    def sent(self, name: str) -> str:
        """Return a field of the form; empty if it was not sent."""
        return self.form.get(name, [""])[0]

    def sent_number(self, name: str) -> int | None:
        """Return a field of the form that is a whole number; None if it is empty. Raises Error(INVALID)."""
        return whole_number(name, self.sent(name))

    def sent_choice(self, name: str, choices: type[E]) -> E:
        """Return a field of the form that is one of some words. Raises Error(INVALID)."""
        try:
            return choices(self.sent(name))
        except ValueError as error:
            said = f"The form does not say which {name}."
            raise Error(Kind.INVALID, said, param=name) from error

    def asked_for(self, name: str) -> str:
        """Return a parameter of the query; empty if there is none."""
        return self.request.query_params.get(name, "")

    def asked_choice(self, name: str, choices: Collection[str]) -> str:
        """Return a parameter of the query that is one of some words; empty if there is none. Raises Error(INVALID)."""
        said = self.asked_for(name)
        if said and said not in choices:
            listed = ", ".join(choices)
            raise Error(
                Kind.INVALID,
                f"There is no {name} '{shown(said)}': it is one of {listed}.",
                param=name,
            )
        return said


@dataclass(frozen=True, slots=True)
class Refused:
    """A form that was refused: why, which parameter is wrong, the path that it was sent to, and what was sent."""

    message: str
    param: str | None
    action: str
    form: Fields


@dataclass(frozen=True, slots=True)
class Sent:
    """What comes back in a form: what was sent to its address, if that was refused."""

    refused: Refused | None

    def value(self, name: str, otherwise: object = "") -> str:
        """Return what was typed into a field; what is in it otherwise if it was not refused."""
        return str(otherwise) if self.refused is None else self.refused.form.get(name, [""])[0]

    def has(self, name: str, value: str) -> bool:
        """Return whether a box was ticked."""
        return self.refused is not None and value in self.refused.form.get(name, [])

    def error_of(self, name: str) -> str:
        """Return what is wrong with a field; empty if nothing is."""
        if self.refused is None or self.refused.param is None:
            return ""
        is_it = name in {self.refused.param, FIELD_OF.get(self.refused.param)}
        return self.refused.message if is_it else ""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request with a session. `refused`: why a form was refused, if the page is the answer to one."""

    asked: Asked
    session: Session
    refused: Refused | None = None

    def again(self, action: str, **hidden: str) -> Sent:
        """Return what comes back in the form that is sent to `action`, if it has these hidden fields."""
        refused = self.refused
        if refused is None or refused.action != action:
            return Sent(None)
        is_it = all(refused.form.get(name) == [value] for name, value in hidden.items())
        return Sent(refused if is_it else None)

    @property
    def caller(self) -> Caller:
        """The caller of the session, as this request has read it."""
        return self.session.caller

    @property
    def address(self) -> str:
        """The page's own address, without the server's."""
        url = self.asked.request.url
        return url.path + (f"?{url.query}" if url.query else "")

    @property
    def context(self) -> Context:
        """What the API's own functions take."""
        return Context(self.session.caller, self.asked.services)

    @property
    def operations(self) -> Operations:
        """The operations of the API."""
        return self.asked.operations


def whole_number(name: str, text: str) -> int | None:
    """Return what was typed into the field `name`; None if it is empty. Raises Error(INVALID)."""
    typed = text.strip()
    if not typed:
        return None
    if not (typed.isascii() and typed.isdecimal() and len(typed) <= DIGITS_MAX):
        said = f"'{name.replace('_', ' ')}' must be a whole number."
        raise Error(Kind.INVALID, said, param=name)
    return int(typed)


async def read_form(request: Request) -> Fields:
    """Return the fields of a form. Raises Error(INVALID), Error(TOO_LARGE), Error(UNSUPPORTED_MEDIA_TYPE)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise Error(Kind.UNSUPPORTED_MEDIA_TYPE, f"The console reads forms ({FORM}) only.")
    body = await read_body(request, BODY_BYTES_MAX)
    try:
        fields = parse_qs(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=FIELDS_MAX,
            errors="strict",
        )
    except ValueError as error:
        said = f"This is no form in UTF-8 with at most {FIELDS_MAX} fields."
        raise Error(Kind.INVALID, said) from error
    if not all(is_text(value) for values in fields.values() for value in values):
        raise Error(Kind.INVALID, "The form has characters that are no text.")
    return fields
