"""The last token of a row that a constraint holds: what could follow it does not matter."""

import asyncio

import pytest
from tests.support import demo_models
from tests.unit.embedded_engine.test_adapters import ENDLESS

from tunewarden.embedded_engine import constraints
from tunewarden.embedded_engine.constraints import Constraint
from tunewarden.embedded_engine.engine import Engine, Served, Settings
from tunewarden.embedded_engine.generation import Generation
from tunewarden.embedded_engine.requests import Ask
from tunewarden.embedded_engine.sequences import Finish
from tunewarden.errors import Error


async def _end(served: Served, tokens: int, stops: tuple[str, ...] = ()) -> Finish | str:
    """Return how an answer of nothing but the letter a ends, or what its error says."""
    ask = Ask(
        model="demo",
        messages=None,
        prompts=[[1, 60, 61]],
        choices=1,
        sampling=ENDLESS,
        tokens_max=tokens,
        stops=stops,
        stream=True,
        include_usage=False,
        constraint=Constraint.of_regex("a{20}", "p"),
    )
    generation = Generation(ask, served, None)
    generation.encode()
    generation.hold()
    generation.start()
    finish: Finish | None = None
    try:
        while not generation.is_finished:
            for delta in await generation.next():
                finish = delta.finish
    except Error as error:
        return error.message
    assert finish is not None
    return finish


def test_a_row_that_has_its_last_token_ends_by_itself_however_long_the_next_mask_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ends() -> list[Finish | str]:
        engine = Engine(Settings())
        try:
            await engine.load_base("demo", demo_models.base_dir())
            served = engine.bases["demo"]
            # From now on each mask takes too long.
            monkeypatch.setattr(constraints, "STEP_SECONDS", -1.0)
            return [await _end(served, 1), await _end(served, 9, ("a",)), await _end(served, 9)]
        finally:
            engine.stop()

    at_most, stopped, goes_on = asyncio.run(ends())
    assert at_most is Finish.LENGTH
    assert stopped is Finish.STOP
    assert isinstance(goes_on, str), "the control"
    assert "take too long to find" in goes_on
