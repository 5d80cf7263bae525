"""The in-toto Statement around the facts of either format. One statement has one reading, and one form."""

from functools import cache
from typing import Any

from tunewarden_receipts import audit_digest, deletion_case, key_hand_over
from tunewarden_receipts.audit_digest import AuditDigestLeaf
from tunewarden_receipts.deletion_case import CaseLeaf
from tunewarden_receipts.facts import FORMAT_1, BlobsErasedFacts, DeletionFacts
from tunewarden_receipts.key_hand_over import KeyHandOverLeaf
from tunewarden_receipts.leaf import (
    FORMAT_2,
    BlobsErasedLeaf,
    DeletionLeaf,
    ExportLeaf,
    Leaf,
    to_json,
)
from tunewarden_receipts.readers import Reader, identifier, list_of, object_of, one_of, sha256

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
Deleted = DeletionFacts | DeletionLeaf
BlobsErased = BlobsErasedFacts | BlobsErasedLeaf
# What is numbered, and about no artifact: it discloses nothing.
Numbered = AuditDigestLeaf | KeyHandOverLeaf
Facts = Deleted | BlobsErased | ExportLeaf | CaseLeaf | Numbered
_NUMBERED: dict[str, Reader] = {
    audit_digest.PREDICATE_TYPE: object_of(AuditDigestLeaf, audit_digest.READERS),
    key_hand_over.PREDICATE_TYPE: object_of(KeyHandOverLeaf, key_hand_over.READERS),
}
# Of each kind: what its subject's name begins with, and the fact that is its subject's digest.
_NUMBERED_SUBJECT = {
    audit_digest.PREDICATE_TYPE: (audit_digest.SUBJECT, "root"),
    key_hand_over.PREDICATE_TYPE: (key_hand_over.SUBJECT, "newKeyId"),
}
_READERS = FORMAT_1 | FORMAT_2 | _NUMBERED


def to_statement(leaf: Leaf | Numbered) -> dict[str, Any]:
    """Return the in-toto Statement v1 of a leaf; `ValueError` if a fact has a wrong form."""
    predicate = to_json(leaf)
    if isinstance(leaf, AuditDigestLeaf | KeyHandOverLeaf):
        is_digest = isinstance(leaf, AuditDigestLeaf)
        kind = audit_digest.PREDICATE_TYPE if is_digest else key_hand_over.PREDICATE_TYPE
        begins, digested = _NUMBERED_SUBJECT[kind]
        digest = {"sha256": predicate.pop(digested)}
        subject = {"name": f"{begins}{leaf.sequence}", "digest": digest}
    elif isinstance(leaf, CaseLeaf):
        digest = {"hmacSha256": predicate.pop("root")}
        subject = {"name": predicate.pop("caseId"), "digest": digest}
        kind = deletion_case.PREDICATE_TYPE
    else:
        digest = {"hmacSha256": predicate.pop("manifestSha256")}
        subject = {"name": predicate.pop("internalId"), "digest": digest}
        what = "model-export" if isinstance(leaf, ExportLeaf) else "blobs-erased"
        if isinstance(leaf, DeletionLeaf):
            what = f"{predicate.pop('kind')}-deletion"
        kind = f"https://tunewarden.dev/{what}/v2"
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": kind,
        "predicate": predicate,
    }
    # What the parser would refuse or read otherwise is never signed.
    if from_statement(statement) != leaf:
        raise ValueError("a fact has a form that a statement cannot carry")
    return statement


def from_statement(statement: object) -> Facts:
    """Return the facts of a parsed statement; `ValueError` unless it is exactly of one of the formats."""
    kind, subjects, predicate = _STATEMENT(statement)
    _, name, _ = _subject_of(kind)
    if len(subjects) != 1:
        raise ValueError("a statement has one subject")
    subject = _subject_reader(kind)(subjects[0])
    if kind in _NUMBERED:
        begins, _ = _NUMBERED_SUBJECT[kind]
        if subject.pop(name) != f"{begins}{predicate.get(name)}":
            raise ValueError("a subject has another number")
    if subject.keys() & predicate.keys():
        raise ValueError("a predicate does not repeat its subject")
    facts: Facts = _READERS[kind](predicate | subject)
    return facts


_STATEMENT = object_of(
    lambda _, *rest: rest,
    {
        "_type": one_of(frozenset({STATEMENT_TYPE})),
        "predicateType": one_of(frozenset(_READERS)),
        "subject": list_of(lambda value: value),
        "predicate": lambda value: dict(value) if isinstance(value, dict) else {},
    },
)


@cache
def _subject_reader(kind: str) -> Reader:
    algorithm, name, digest = _subject_of(kind)
    return object_of(
        lambda identity, manifest: {name: identity, digest: manifest},
        {"name": identifier, "digest": object_of(str, {algorithm: sha256})},
    )


def _subject_of(kind: str) -> tuple[str, str, str]:
    """Return the algorithm of a subject's digest, and which facts its name and its digest are."""
    if kind in FORMAT_1:
        return "sha256", "artifactId", "manifestSha256"
    if kind == deletion_case.PREDICATE_TYPE:
        return "hmacSha256", "caseId", "root"
    if kind in FORMAT_2:
        return "hmacSha256", "internalId", "manifestSha256"
    return "sha256", "sequence", _NUMBERED_SUBJECT[kind][1]
