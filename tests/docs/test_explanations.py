"""docs/explanation: the clauses, words and leaves that the pages name are those of the code."""

import re
from pathlib import Path

from tunewarden.artifacts.directory_keyring import SHARD_CAPACITY
from tunewarden.artifacts.keyring import Assurance
from tunewarden.deletion import protocol
from tunewarden_receipts import audit_digest, deletion_case, key_hand_over, leaf

PAGES = Path(__file__).parents[2] / "docs/explanation"
LEAVES = {
    "a deletion (D7)": leaf.DeletionLeaf,
    "blobs erased (D9)": leaf.BlobsErasedLeaf,
    "a case's summary": deletion_case.CaseLeaf,
    "an export": leaf.ExportLeaf,
    "a hand-over": key_hand_over.KeyHandOverLeaf,
    "a digest of the audit log, daily": audit_digest.AuditDigestLeaf,
}


def _page(name: str) -> str:
    return (PAGES / name).read_text("utf-8")


def test_the_protocol_has_its_clauses_in_their_order() -> None:
    clauses = re.findall(r"^(D\d+) ", protocol.__doc__ or "", re.MULTILINE)
    shown = re.findall(r"^\| (D\d+) \|", _page("deletion-protocol.md"), re.MULTILINE)
    assert shown == clauses
    steps = re.findall(r"^\| (D\d+) ", _page("what-deleted-means.md"), re.MULTILINE)
    assert steps == ["D3", *(step.value for step in protocol.Step)]


def test_receipts_have_the_words_that_the_page_explains() -> None:
    page = _page("keys-and-receipts.md")
    for word in (*leaf.ENGINE_HOW, *(one.value for one in Assurance)):
        assert f"`{word}`" in page
    assert f"up to {SHARD_CAPACITY:,} artifacts' keys" in page


def test_the_log_has_the_leaves_that_the_page_lists_and_no_other() -> None:
    table = _page("the-log.md").split("| leaf | says | names |\n")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    assert sorted(rows) == sorted(LEAVES)
    folder = Path(leaf.__file__).parent
    declared = {
        name
        for path in folder.glob("*.py")
        for name in re.findall(r"^class (\w+Leaf)\b", path.read_text("utf-8"), re.MULTILINE)
    }
    assert declared == {one.__name__ for one in LEAVES.values()}
