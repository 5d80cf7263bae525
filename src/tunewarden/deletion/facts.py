"""What a receipt can state, and its JSON form. A receipt says these facts and nothing else (I17).

The parser accepts exactly what `to_json` writes, so a statement has one reading. Texts are checked
for shape: ids cannot hold an e-mail address or a space, times are UTC with microseconds, and no
text can move a terminal's cursor. Whoever fills them in keeps personal data out: a log entry can
never be erased.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

MAX_LIST = 1_000
_MAX_INTEGER = 2**53 - 1  # RFC 8785 / I-JSON
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
)


@dataclass(frozen=True, slots=True)
class FencedWorker:
    """One worker that could have begun requests, and how it was made sure that it does not."""

    worker: str
    how: str  # one of WORKER_HOW


@dataclass(frozen=True, slots=True)
class EvictedEngine:
    """One engine that could have held the weights, and how it let go of them."""

    engine: str
    how: str  # one of ENGINE_HOW
    aborted: int  # running requests that were cut
    zeroed: bool  # whether it said that it overwrote the weights


@dataclass(frozen=True, slots=True)
class ErasedKey:
    """The key that was erased, the keyring's generations around it, and what that is worth."""

    id: str
    shard: str
    generation_before: int
    generation_after: int
    method: str
    assurance: str


@dataclass(frozen=True, slots=True)
class SealedBlobs:
    """The encrypted files that no key opens any more; their own erasure follows."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DeletionFacts:
    """A deletion as it was done up to the log (D1 to D6). Times are RFC 3339 text, `clock.iso`."""

    deletion_id: str
    organization_id: str
    artifact_id: str
    internal_id: str
    manifest_sha256: str
    requested_by: str
    requested_at: str
    committed_at: str
    fenced_at: str
    evicted_at: str
    key_erased_at: str
    epoch: int
    fence: tuple[FencedWorker, ...]
    engines: tuple[EvictedEngine, ...]
    key: ErasedKey
    blobs: SealedBlobs
    residuals: tuple[str, ...]
    software: str
    kind: str = "model"  # what was deleted: the statement's type says it


@dataclass(frozen=True, slots=True)
class BlobsErasedFacts:
    """The erasure of a deleted artifact's blobs as it was done (D9); `failures` names what is left."""

    deletion_id: str
    artifact_id: str
    manifest_sha256: str
    erased_at: str
    count: int
    versions: int
    size_bytes: int
    failures: tuple[str, ...]
    software: str


Facts = DeletionFacts | BlobsErasedFacts
WORKER_HOW = frozenset({"released", "killed", "gone"})
ENGINE_HOW = frozenset({"evicted", "not_running", "restarted"})


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 512 or not value.isprintable():
        raise ValueError("a text is empty, too long or not printable")
    return value


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"not {what}")
        return value

    return read


def _one_of(words: frozenset[str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"not one of {', '.join(sorted(words))}")
        return value

    return read


def _integer(value: object) -> int:
    # `type`, for True is an int to isinstance.
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise ValueError("not a whole number")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("not true or false")  # noqa: TRY004 - one exception for the verifier
    return value


_id = _matching(_ID, "an id")
_time = _matching(_TIME, "a UTC time with microseconds")
_Reader = Callable[[object], Any]


def _object(make: Callable[..., Any], readers: Mapping[str, _Reader]) -> _Reader:
    """Return a reader of a JSON object with exactly these members, in the order of `make`'s fields."""

    def read(value: object) -> Any:
        if not isinstance(value, dict) or value.keys() != readers.keys():
            raise ValueError("an object has other members than this format")
        return make(*(reader(value[name]) for name, reader in readers.items()))

    return read


def _list(reader: _Reader) -> Callable[[object], tuple[Any, ...]]:
    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > MAX_LIST:
            raise ValueError("not a list, or too long")
        return tuple(map(reader, value))

    return read


# Member of the JSON object -> its reader, in the order of the dataclass's fields.
# `artifactId` and `manifestSha256` stand in the statement's subject, all others in its predicate.
_WORKER = {"worker": _id, "how": _one_of(WORKER_HOW)}
_ENGINE = {"engine": _id, "how": _one_of(ENGINE_HOW), "aborted": _integer, "zeroed": _flag}
_KEY = {
    "id": _id,
    "shard": _id,
    "generationBefore": _integer,
    "generationAfter": _integer,
    "method": _text,
    "assurance": _text,
}
_BLOBS = {"count": _integer, "sizeBytes": _integer}
_ARTIFACT = {"artifactId": _id}
_MANIFEST = {"manifestSha256": _matching(_SHA256, "a SHA-256 digest in hex")}
_DELETION: dict[str, _Reader] = {
    "deletionId": _id,
    "organizationId": _id,
    **_ARTIFACT,
    "internalId": _id,
    **_MANIFEST,
    "requestedBy": _id,
    "requestedAt": _time,
    "committedAt": _time,
    "fencedAt": _time,
    "evictedAt": _time,
    "keyErasedAt": _time,
    "epoch": _integer,
    "fence": _list(_object(FencedWorker, _WORKER)),
    "engines": _list(_object(EvictedEngine, _ENGINE)),
    "key": _object(ErasedKey, _KEY),
    "blobs": _object(SealedBlobs, _BLOBS),
    "residuals": _list(_text),
    "software": _text,
}
_BLOBS_ERASED: dict[str, _Reader] = {
    "deletionId": _id,
    **_ARTIFACT,
    **_MANIFEST,
    "erasedAt": _time,
    "count": _integer,
    "versions": _integer,
    "sizeBytes": _integer,
    "failures": _list(_id),
    "software": _text,
}
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
# Predicate type -> what was deleted ("" where it does not say) and the reader of its facts.
_FORMATS: dict[str, tuple[str, _Reader]] = {
    "https://tunewarden.dev/model-deletion/v1": ("model", _object(DeletionFacts, _DELETION)),
    "https://tunewarden.dev/file-deletion/v1": (
        "file",
        _object(partial(DeletionFacts, kind="file"), _DELETION),
    ),
    "https://tunewarden.dev/blobs-erased/v1": ("", _object(BlobsErasedFacts, _BLOBS_ERASED)),
}


def to_statement(facts: Facts) -> dict[str, Any]:
    """Return the in-toto Statement v1 that says `facts`; `ValueError` if a fact has a wrong form."""
    predicate = _json(facts)
    subject = {
        "name": predicate.pop("artifactId"),
        "digest": {"sha256": predicate.pop("manifestSha256")},
    }
    deleted = predicate.pop("kind", "")
    (kind,) = (kind for kind, (what, _) in _FORMATS.items() if what == deleted)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": kind,
        "predicate": predicate,
    }
    # What the parser would refuse or read otherwise is never signed.
    if from_statement(statement) != facts:
        raise ValueError("a fact has a form that a statement cannot carry")
    return statement


def from_statement(statement: object) -> Facts:
    """Return the facts of a parsed statement; `ValueError` unless it is exactly of this format."""
    kind, subject, predicate = _object(
        lambda _, *rest: rest,
        {
            "_type": _one_of(frozenset({STATEMENT_TYPE})),
            "predicateType": _one_of(frozenset(_FORMATS)),
            "subject": _list(
                _object(_subject, {"name": _id, "digest": _object(str, {"sha256": _text})})
            ),
            "predicate": lambda value: dict(value) if isinstance(value, dict) else {},
        },
    )(statement)
    if len(subject) != 1 or subject[0].keys() & predicate.keys():
        raise ValueError("a statement has one subject, which the predicate does not repeat")
    facts: Facts = _FORMATS[kind][1](predicate | subject[0])
    return facts


def _subject(name: str, digest: str) -> dict[str, str]:
    return {"artifactId": name, "manifestSha256": digest}


def _json(value: Any) -> Any:
    """Return the JSON form of facts: members in camel case, tuples as lists."""
    if is_dataclass(value):
        return {_camel(field.name): _json(getattr(value, field.name)) for field in fields(value)}
    return [_json(item) for item in value] if isinstance(value, tuple) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
