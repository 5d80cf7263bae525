"""How the benchmarks judge: what is flat, when an overload is over, what the page shows."""

from pathlib import Path

import pytest
from benchmarks import overload, results, soak
from benchmarks.open_loop import Asked
from benchmarks.overload import Stage
from benchmarks.weighing import Weight


def _weights(mib_a_minute: float = 0.0, files_a_minute: float = 0.0) -> list[Weight]:
    """Half an hour of a worker that grows for three minutes, and then by so much."""
    found = []
    for at in range(0, 1800, 10):
        minutes = max(0, at - 180) / 60
        warm = 60 + min(at, 180) / 9
        grown = warm + mib_a_minute * minutes
        files = round(100 + files_a_minute * minutes)
        found.append(Weight(float(at), grown, grown, files, 9, 0.0))
    return found


def test_what_grows_while_it_warms_up_is_flat() -> None:
    assert soak.leaks("worker", _weights()) == []


def test_a_worker_that_grows_by_a_quarter_of_a_mebibyte_a_minute_leaks() -> None:
    (found,) = soak.leaks("worker", _weights(mib_a_minute=0.25))
    assert found.startswith("worker: rss_mib from 80.")


def test_a_worker_that_loses_a_descriptor_a_minute_leaks() -> None:
    assert soak.leaks("worker", _weights(files_a_minute=1)) == [
        "worker: descriptors from 102 to 124"
    ]


def _stage(*seconds: float, each: float = 0.05) -> Stage:
    stage = Stage("", 1 / each, len(seconds) * each)
    for number, took in enumerate(seconds):
        due = number * each
        stage.asked.append(Asked(b"", due, status=200, is_whole=True, ended_at=due + took))
    return stage


def test_an_overload_is_over_when_every_later_window_is_as_before() -> None:
    before = _stage(*[0.05] * 40)
    assert overload._recovered_after(before, _stage(*[0.06] * 40)) == 0
    assert overload._recovered_after(before, _stage(*[0.5] * 16, *[0.05] * 24)) == 1.0


def test_an_overload_is_not_over_while_requests_are_refused() -> None:
    after = _stage(*[0.05] * 40)
    after.asked[33].status = 503
    assert overload._recovered_after(_stage(*[0.05] * 40), after) == 1.75


def test_a_refusal_must_say_when_to_try_again() -> None:
    body = bytearray(
        b'{"error": {"message": "", "type": "", "param": null, "code": "engine_busy"}}'
    )
    told = Asked(b"", 0, status=503, body=body)
    assert not overload._tells_more(told)
    told.headers = {b"retry-after": b"1", b"x-should-retry": b"true"}
    assert overload._tells_more(told)


def test_what_was_measured_stands_on_the_page_with_day_command_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "MEASURED", tmp_path)
    assert results.sections() == []
    results.keep("soak", "python -m soak", [("what", "how"), ("a", "b")], failures=["x is y"])
    (part,) = results.sections()
    kept = results.kept("soak")
    assert kept is not None
    assert part.startswith("## Soak\n\n")
    assert part.endswith("| what | how |\n| --- | --- |\n| a | b |")
    for said in ("Not met: x is y.", "`python -m soak`", kept["day"], kept["commit"]):
        assert said in part
