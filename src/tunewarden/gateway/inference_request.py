"""An inference request's body: parsed for the fields that the gateway reads, and rewritten for its engine.

Engines know a model by its internal id, clients by its public one.
"""

import json
import re
from hashlib import blake2b
from typing import Any

import msgspec

from tunewarden.artifacts.strict_json import is_text
from tunewarden.errors import Error, Kind
from tunewarden.gateway.rewriting import OUTPUT_MAX, UNREADABLE, renaming
from tunewarden.invalid_values import wrong_type

# A model's name as JSON, in a body that could not be parsed as a whole.
NAME = re.compile(rb'"model"\s*:\s*("(?:[^"\\\0-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){0,1024}")')
# Outside strings, these bytes of JSON bound the number of values.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
CONTAINERS = (b"[", b"{")
STRUCTURE = (b",", b":", *CONTAINERS)
# The engine allocates an object for each value, and its garbage collector tracks each container.
VALUES_MAX = 200_000
CONTAINERS_MAX = 50_000
# The name of a field, and a body's end with the field in it.
USAGE_WANTED = b'"stream_options"', b',"stream_options":{"include_usage":true}}'
NO_STORE = b'"store"', b',"store":false}'


class _Asked(msgspec.Struct):
    """The fields that the gateway reads; left untyped because the engine validates them."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    store: Any = None
    max_completion_tokens: Any = None
    max_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    best_of: Any = None
    prompt: msgspec.Raw = msgspec.Raw(b"")


class _DrawnBy(msgspec.Struct):
    """The fields that say whose request it is."""

    user: Any = None
    prompt_cache_key: Any = None


_asked = msgspec.json.Decoder(_Asked)
_drawn_by = msgspec.json.Decoder(_DrawnBy)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])


class InferenceRequest:
    """A parsed request body: the model it names, and the original bytes."""

    __slots__ = (
        "_asked", "_body", "_drawn", "_options", "_rest", "_takes_options", "is_stream", "model", "options", "store", "wants_usage",
    )  # fmt: skip

    def __init__(self, model: str, body: bytes, asked: _Asked) -> None:
        options = asked.stream_options
        self.model = model
        self.store = asked.store
        self.is_stream = asked.stream is True
        self.options = options
        self._asked = asked
        self._body = body
        # The other fields, as a JSON object, if the body was split.
        self._rest: bytes | None = None
        self._drawn: int | None = None
        self._options: dict[str, Any] = options if isinstance(options, dict) else {}
        self.wants_usage = self._options.get("include_usage") is True
        # Options of another type are invalid; the engine reports that.
        self._takes_options = options is None or isinstance(options, dict)

    @classmethod
    def parse(cls, body: bytes) -> "InferenceRequest":
        """Parse a body. Raises Error(INVALID) with OpenAI's messages."""
        try:
            if not body.isascii():
                body.decode()  # msgspec does not validate UTF-8 in skipped fields
            asked = _asked.decode(body)
        except msgspec.ValidationError as error:
            raise Error(Kind.INVALID, "The body of your request must be a JSON object.") from error
        except UNREADABLE as error:
            raise (_unfit_model(body) or unreadable()) from error
        model = asked.model
        if not isinstance(model, str) or not model or "\0" in model:
            raise _no_model()
        return cls(model, body, asked)

    @property
    def size(self) -> int:
        """The size of the body in bytes."""
        return len(self._body if self._rest is None else self._rest)

    @property
    def output_max(self) -> int | None:
        """How many tokens the response may have at most; None if the request does not say that."""
        asked = self._asked
        most = asked.max_completion_tokens or asked.max_tokens or asked.max_output_tokens
        if most is None or type(most) is not int or most < 0:
            return None
        choices = max(one if type(one) is int else 1 for one in (asked.n, asked.best_of, 1))
        return min(most * choices * _prompts(asked.prompt), OUTPUT_MAX)

    @classmethod
    def taken_apart(cls, body: bytes) -> "tuple[InferenceRequest, bytes]":
        """Parse and split a long body; return it and its other fields, for `of_parts`. Raises Error(INVALID)."""
        request = cls.parse(body)
        bare = STRING.sub(b"", body)
        if sum(map(bare.count, STRUCTURE)) > VALUES_MAX:
            message = f"The body of your request has too many values (limit {VALUES_MAX})."
            raise Error(Kind.INVALID, message)
        if sum(map(bare.count, CONTAINERS)) > CONTAINERS_MAX:
            message = f"The body of your request has too many arrays and objects (limit {CONTAINERS_MAX})."
            raise Error(Kind.INVALID, message)
        try:
            fields = _fields.decode(body)
        except UNREADABLE as error:
            raise unreadable() from error
        fields.pop("model")
        fields.pop("stream_options", None)
        fields.pop("store", None)
        return request, msgspec.json.encode(fields)

    @classmethod
    def of_parts(
        cls,
        model: str,
        rest: bytes,
        *,
        is_stream: bool,
        options: object,
        store: object,
        output_max: int | None,
        drawn: int,
    ) -> "InferenceRequest":
        """Return a request from the parts that another process split; `drawn` is what `draw` returned there."""
        asked = _Asked(stream=is_stream, stream_options=options, store=store, max_tokens=output_max)
        request = cls(model, b"", asked)
        request._rest = rest
        request._drawn = drawn
        return request

    def draw(self) -> int:
        """Return the number that chooses among an alias's targets: the same for a retry, and for all of one user.

        It is a hash of `user`, else of `prompt_cache_key`, else of the whole body.
        """
        if self._drawn is not None:
            return self._drawn
        try:
            named = _drawn_by.decode(self._body)
        except UNREADABLE:
            named = _DrawnBy()
        given = named.user or named.prompt_cache_key
        chosen = given.encode() if isinstance(given, str) else self._body
        return int.from_bytes(blake2b(chosen, digest_size=8).digest())

    def for_engine(
        self, engine_model: str, *, ask_usage: bool, forbids_store: bool = False
    ) -> bytes:
        """Return the body for an engine; `ask_usage` requests a stream's usage, so that it can be counted.

        `forbids_store` sends `store: false`. Raises Error(INVALID) for what only full parsing shows.
        """
        asks = ask_usage and self.is_stream and not self.wants_usage and self._takes_options
        if forbids_store and not isinstance(self.store, bool | None):
            # Else an engine that is sent `false` instead would take what others refuse.
            raise wrong_type("store", "a boolean", self.store)
        forbids_store = forbids_store and self.store is not False
        if self._rest is not None:
            return self._put_together(
                engine_model, self._rest, asks=asks, forbids_store=forbids_store
            )
        body = self._renamed(engine_model)
        if body is not None and not asks and not forbids_store:
            return body
        # No route asks for both.
        name, written = NO_STORE if forbids_store else USAGE_WANTED
        if body is not None and name not in body:
            return body[: body.rindex(b"}")] + written
        return self._rewritten(engine_model, asks=asks, forbids_store=forbids_store)

    def _put_together(
        self, engine_model: str, rest: bytes, *, asks: bool, forbids_store: bool
    ) -> bytes:
        options = {**self._options, "include_usage": True} if asks else self.options
        store = False if forbids_store else self.store
        parts = [b'{"model":', msgspec.json.encode(engine_model)]
        if options is not None:
            parts += [b',"stream_options":', msgspec.json.encode(options)]
        if store is not None:
            parts += [b',"store":', msgspec.json.encode(store)]
        parts += [b"}"] if rest == b"{}" else [b",", rest[1:]]
        return b"".join(parts)

    def _renamed(self, engine_model: str) -> bytes | None:
        """Return the body with the engine's name for the model; None if it cannot be replaced without parsing.

        If the body has no escaped characters and `"model"` occurs once, that is the field: inside a string
        its quotes would be escaped, and only before the second one can a string end in between.
        """
        body = self._body
        if body.count(b'"model"') != 1 or b"\\u" in body:
            return None
        return renaming(self.model, engine_model).apply_once(body)

    def _rewritten(self, engine_model: str, *, asks: bool, forbids_store: bool) -> bytes:
        try:
            # Values stay raw bytes: decoding a long body into objects takes seconds.
            fields: dict[str, Any] = _fields.decode(self._body)
        except UNREADABLE as error:
            raise unreadable() from error
        fields["model"] = engine_model
        if asks:
            fields["stream_options"] = {**self._options, "include_usage": True}
        if forbids_store:
            fields["store"] = False
        return msgspec.json.encode(fields)


def _prompts(prompt: msgspec.Raw) -> int:
    """Return how many prompts a completion has: a list of texts or of lists of tokens is as many."""
    try:
        given = _list.decode(prompt) if bytes(memoryview(prompt)[:1]) == b"[" else []
    except UNREADABLE:
        return 1  # the engine refuses it
    return len(given) if given and bytes(memoryview(given[0])[:1]) in {b'"', b"["} else 1


def _unfit_model(body: bytes) -> Error | None:
    """Return the error for a model name with a lone surrogate; None if the body is invalid for another reason."""
    at = body.find(b'"model"')
    found = NAME.match(body, at) if at >= 0 else None
    if found is None or is_text(json.loads(found[1].decode("utf-8", "replace"))):
        return None
    return _no_model()


def _no_model() -> Error:
    return Error(Kind.INVALID, "You must provide a model parameter.", param="model")


def unreadable() -> Error:
    """Return the error for a body that is not JSON."""
    return Error(
        Kind.INVALID,
        "We could not parse the JSON body of your request. It must be a JSON object with a"
        " content-type of application/json.",
    )
