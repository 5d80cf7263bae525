"""The in-toto Statement around the facts of either format. One statement has one reading, and one form."""

from typing import Any

from tunewarden_receipts.facts import FORMAT_1, BlobsErasedFacts, DeletionFacts
from tunewarden_receipts.leaf import FORMAT_2, BlobsErasedLeaf, DeletionLeaf, Leaf, to_json
from tunewarden_receipts.readers import identifier, list_of, object_of, one_of, sha256

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
Deleted = DeletionFacts | DeletionLeaf
BlobsErased = BlobsErasedFacts | BlobsErasedLeaf
Facts = Deleted | BlobsErased
_READERS = FORMAT_1 | FORMAT_2


def to_statement(leaf: Leaf) -> dict[str, Any]:
    """Return the in-toto Statement v1 of a leaf; `ValueError` if a fact has a wrong form."""
    predicate = to_json(leaf)
    digest = {"hmacSha256": predicate.pop("manifestSha256")}
    subject = {"name": predicate.pop("internalId"), "digest": digest}
    what = f"{predicate.pop('kind')}-deletion" if isinstance(leaf, DeletionLeaf) else "blobs-erased"
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": f"https://tunewarden.dev/{what}/v2",
        "predicate": predicate,
    }
    # What the parser would refuse or read otherwise is never signed.
    if from_statement(statement) != leaf:
        raise ValueError("a fact has a form that a statement cannot carry")
    return statement


def from_statement(statement: object) -> Facts:
    """Return the facts of a parsed statement; `ValueError` unless it is exactly of one of the formats."""
    kind, subjects, predicate = object_of(
        lambda _, *rest: rest,
        {
            "_type": one_of(frozenset({STATEMENT_TYPE})),
            "predicateType": one_of(frozenset(_READERS)),
            "subject": list_of(lambda value: value),
            "predicate": lambda value: dict(value) if isinstance(value, dict) else {},
        },
    )(statement)
    digest, name = ("sha256", "artifactId") if kind in FORMAT_1 else ("hmacSha256", "internalId")
    read = object_of(
        lambda identity, manifest: {name: identity, "manifestSha256": manifest},
        {"name": identifier, "digest": object_of(str, {digest: sha256})},
    )
    if len(subjects) != 1:
        raise ValueError("a statement has one subject")
    subject = read(subjects[0])
    if subject.keys() & predicate.keys():
        raise ValueError("a predicate does not repeat its subject")
    facts: Facts = _READERS[kind](predicate | subject)
    return facts
