"""What fences, engines and the keyring say of a deletion is what a receipt can say; else D7 would fail for ever."""

import pytest
from msgspec.structs import replace

from tunewarden.artifacts.keyring import Assurance, ErasedKey, Method
from tunewarden.deletion import records, reports
from tunewarden.deletion.disclosure import disclosure_of
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.reports import BlobsReport, EngineReport, KeyReport
from tunewarden.engines.port import Evicted, Eviction
from tunewarden.serving.fence import Ending, FencedWorker
from tunewarden_receipts import facts, leaf
from tunewarden_receipts.leaf import disclosure_json, read_disclosure


def test_every_ending_of_a_worker_is_a_word_of_the_receipt() -> None:
    assert {ending.value for ending in Ending} == facts.WORKER_HOW


def test_every_eviction_is_a_word_of_the_receipt() -> None:
    assert {eviction.value for eviction in Eviction} == leaf.ENGINE_HOW


def _row(**fields: object) -> Deletion:
    """Return a deletion whose row holds nothing but these columns, and its salt."""
    return records.from_row(
        tuple({"salt": bytes(32), **fields}.get(name) for name in Deletion.__struct_fields__)
    )


@pytest.mark.parametrize("how", Ending)
def test_what_a_fence_saw_of_a_worker_comes_out_of_the_row_into_a_receipt(how: Ending) -> None:
    seen = (FencedWorker("w1", how),)
    deletion = _row(fence_report=reports.encoded(seen))
    assert deletion.fence_report == seen
    shown = disclosure_of(deletion, [], None)
    assert read_disclosure(_named(disclosure_json(shown))).fence == (
        facts.FencedWorker("w1", how.value),
    )


@pytest.mark.parametrize("how", Eviction)
def test_what_an_engine_saw_comes_out_of_the_row_into_a_receipt(how: Eviction) -> None:
    seen = (EngineReport.of(Evicted("embedded", how, aborted=2)),)
    deletion = _row(evict_report=reports.encoded(seen))
    assert deletion.evict_report == seen
    shown = disclosure_of(deletion, [], None)
    assert read_disclosure(_named(disclosure_json(shown))).engines == (
        leaf.EvictedEngine("embedded", how.value, 2),
    )


def _named(disclosure: dict[str, object]) -> dict[str, object]:
    """Return a disclosure without what such a bare row cannot say."""
    return {name: disclosure[name] for name in ("salt", "fence", "engines")}


def test_what_an_older_server_noted_of_engines_is_read_and_shown_as_it_was() -> None:
    text = '[{"engine":"embedded","how":"evicted","aborted":1,"zeroed":true}]'
    report = _row(evict_report=text).evict_report
    assert report == (EngineReport("embedded", "evicted", 1, zeroed=True),)
    assert reports.encoded(report) == text
    assert {"evicted", "not_running", "restarted"} == facts.ENGINE_HOW


def test_what_the_keyring_did_comes_out_of_the_row_as_the_receipt_says_it() -> None:
    assert KeyReport.__struct_fields__ == facts.ErasedKey.__match_args__
    for method in Method:
        for assurance in Assurance:
            erased = ErasedKey("k000001-a", 1, 4, 5, method, assurance)
            report = KeyReport.of(erased)
            assert report == KeyReport("k000001-a", "000001", 4, 5, method.value, assurance.value)
            assert _row(key_report=reports.encoded(report)).key_report == report


def test_what_the_blobs_erasure_found_comes_out_of_the_row() -> None:
    report = BlobsReport(2, 3, 4096, "2026-01-01T00:00:00.000000Z", "tunewarden 1")
    deletion = _row(blobs_report=reports.encoded(report))
    assert deletion.blobs_report == report
    assert replace(deletion, blobs_report=None).blobs_report is None
