"""`migrate openai compare` on a pair of models that differ in known ways: every figure is the one counted by hand."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli import in_process
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.openai_source import KEY, OpenAI
from tests.support import migrations, servers
from tests.support.migrations import BASE
from tests.support.servers import Server

OLD, NEW = f"ft:{BASE}:acme:known:AbCd1234", "known-differences"


def _text(content: str | None, *, refusal: str | None = None) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, "refusal": refusal}}


def _call(arguments: str) -> dict[str, Any]:
    function = {"name": "find", "arguments": arguments}
    call = {"id": "call_1", "type": "function", "function": function}
    return {"message": {"role": "assistant", "content": None, "tool_calls": [call]}}


def _label(content: str, chance: float) -> dict[str, Any]:
    token = {"token": content, "logprob": math.log(chance), "bytes": None, "top_logprobs": []}
    return {**_text(content), "logprobs": {"content": [token]}}


# A question -> the answer there, and the one here.
ANSWERS = {
    "the same": (_text("We open at nine."), _text("We open at nine.")),
    "but for spaces": (_text("We open at nine."), _text(" We open at nine.\n")),
    "another text": (_text("We open at nine."), _text("We open at ten.")),
    "another order": (_text('{"a": 1, "b": [2, 3]}'), _text('{"b": [2, 3], "a": 1}')),
    "one of four fields": (
        _text('{"a": 1, "b": 2, "c": 3, "d": 4}'),
        _text('{"a": 1, "b": 2, "c": 3, "d": 5}'),
    ),
    "no JSON any more": (_text('{"a": 1}'), _text("a is 1")),
    "the same call": (_call('{"x": 1, "y": 2}'), _call('{"y": 2, "x": 1}')),
    "another call": (_call('{"x": 1}'), _call('{"x": 2}')),
    "the same label": (_label("spam", 0.9), _label("spam", 0.7)),
    "another label": (_label("spam", 0.6), _label("ham", 0.8)),
    "a refusal": (_text("Take two."), _text(None, refusal="I cannot help with that.")),
}


def _with(name: str, side: int) -> OpenAI:
    has = OpenAI()
    has.models = [BASE, name]
    has.choices = {question: pair[side] for question, pair in ANSWERS.items()}
    return has


def _moved(there: OpenAI, server: Server, directory: Path) -> migrations.Moving:
    """Return a migration with answers, whose model is made again as NEW."""
    lines = [
        {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": "-"}]}
        for one in ANSWERS
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    job = there.add_job(OLD, BASE, there.add_file(content))
    moving = migrations.moving(directory, there.url, settings=over_http(server))
    for step in (["inventory"], ["download"], ["record", "--yes"]):
        ran = moving.run(*step)
        assert ran.returncode == 0, ran.stderr
    migrations.note_made_again(moving, job, NEW)
    return moving


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Server]:
    """A server of its own: its base is gone afterwards."""
    with servers.serving(tmp_path / "data", kind=servers.WithoutTorch) as running:
        yield running


def test_every_figure_is_the_one_that_was_counted_by_hand(target: Server, tmp_path: Path) -> None:
    key = tmp_path / "engine.key"
    key.write_text(KEY)
    key.chmod(0o600)
    there, here = _with(OLD, 0), _with(NEW, 1)
    with openai_source.serving(there), openai_source.serving(here):
        options = ["--engine-url", here.url, "--engine-key-file", str(key)]
        added = in_process.on(target, "bases", "add", NEW, *options)
        assert added.returncode == 0, added.stderr
        moving = _moved(there, target, tmp_path)
        ran = moving.run("compare", "--json", "--at-least", "exact=0.3", "--at-least", "json=0.7")
    (found,) = json.loads(ran.stdout)["comparisons"]
    figures = found["figures"]
    assert figures["answers"] == 11
    shares = {
        name: (figures[name]["of"], figures[name]["share"])
        for name in ("exact", "json", "fields", "tools", "labels")
    }
    assert shares == {
        "exact": (11, pytest.approx(4 / 11)),
        "json": (3, pytest.approx(2 / 3)),
        "fields": (3, pytest.approx((1 + 3 / 4 + 0) / 3)),
        "tools": (2, 0.5),
        "labels": (2, 0.5),
    }
    # Of the other label, the chance that it begins as the old one does is unknown here: none.
    assert figures["chance_difference"] == pytest.approx((0.2 + 0.6) / 2)
    assert (figures["refused_there"], figures["refused_here"]) == (0, 1)
    assert (ran.returncode, found["below"]) == (1, ["json"])
