"""Choosing tokens."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.embedded_engine.sampling import Chooser, Sampling, choose

LOGITS = torch.tensor([[0.0, 2.0, 1.0, -1.0]])


def draw_many(sampling: Sampling, count: int = 2000) -> list[int]:
    chooser = Chooser(sampling, 0)
    return [choose(LOGITS, [chooser])[0].token for _ in range(count)]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert set(draw_many(Sampling(temperature=0), 5)) == {1}


def test_draws_follow_the_distribution() -> None:
    tokens = draw_many(Sampling(temperature=1, seed=3))
    for token, share in enumerate(torch.softmax(LOGITS[0], -1).tolist()):
        assert tokens.count(token) / len(tokens) == pytest.approx(share, abs=0.04)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    shares = sorted(torch.softmax(LOGITS[0], -1).tolist(), reverse=True)
    assert set(draw_many(Sampling(top_p=shares[0] - 0.01, seed=1), 200)) == {1}
    assert set(draw_many(Sampling(top_p=shares[0] + 0.01, seed=1), 500)) == {1, 2}
    assert set(draw_many(Sampling(top_p=0, seed=1), 50)) == {1}


def test_top_k_and_min_p_leave_the_likeliest() -> None:
    assert set(draw_many(Sampling(top_k=1, seed=1), 100)) == {1}
    assert set(draw_many(Sampling(top_k=2, seed=1), 300)) == {1, 2}
    assert set(draw_many(Sampling(top_k=9, seed=1), 500)) == {0, 1, 2, 3}
    assert set(draw_many(Sampling(min_p=1.0, seed=1), 100)) == {1}
    # The second is e^-1 times as likely as the first.
    assert set(draw_many(Sampling(min_p=math.exp(-1.01), seed=1), 300)) == {1, 2}


def test_top_p_is_a_share_of_what_top_k_leaves() -> None:
    # Of the two that are left the first has 0.73, of all four 0.64.
    assert set(draw_many(Sampling(top_k=2, top_p=0.7, seed=1), 300)) == {1}
    assert set(draw_many(Sampling(top_p=0.7, seed=1), 300)) == {1, 2}


def test_a_row_without_top_p_draws_the_same_beside_one_with_it() -> None:
    alone = draw_many(Sampling(seed=4), 20)
    chooser, other = Chooser(Sampling(seed=4), 0), Chooser(Sampling(seed=5, top_p=0.5), 0)
    company = torch.cat([LOGITS, LOGITS])
    assert [choose(company, [other, chooser])[1].token for _ in range(20)] == alone


def test_a_repetition_penalty_counts_prompt_and_text() -> None:
    greedy = Sampling(temperature=0, repetition_penalty=4.0)
    chooser = Chooser(greedy, 0, prompt=[1])
    # 2.0 becomes 0.5, so 1.0 is said; then that is 0.25.
    assert [choose(LOGITS, [chooser])[0].token for _ in range(3)] == [2, 1, 1]
    # Negative ones are multiplied: -1.0 becomes -4.0.
    assert choose(LOGITS - 3, [Chooser(greedy, 0, prompt=[1])])[0].token == 2
    assert draw_many(greedy, 3) == [1, 2, 1]


def test_nothing_ends_a_text_before_min_tokens() -> None:
    chooser = Chooser(Sampling(temperature=0, min_tokens=2), 0, ends=[1, 2])
    assert [choose(LOGITS, [chooser])[0].token for _ in range(4)] == [0, 0, 1, 1]
    assert not chooser.adjusts


def test_a_seed_repeats_and_choices_of_one_request_differ() -> None:
    sampling = Sampling(seed=9)
    assert draw_many(sampling, 50) == draw_many(sampling, 50)
    first, second = Chooser(sampling, 0), Chooser(sampling, 1)
    assert [first.draw() for _ in range(5)] != [second.draw() for _ in range(5)]


def test_a_row_draws_the_same_in_any_company() -> None:
    alone = draw_many(Sampling(seed=4, top_p=0.9), 20)
    chooser, other = Chooser(Sampling(seed=4, top_p=0.9), 0), Chooser(Sampling(temperature=0), 0)
    company = torch.cat([LOGITS.flip(-1), LOGITS])
    assert [choose(company, [other, chooser])[1].token for _ in range(20)] == alone


def test_bias_rules_a_token_out_and_leaves_the_logits() -> None:
    before = LOGITS.clone()
    assert set(draw_many(Sampling(temperature=0, logit_bias=((1, -100.0),)), 3)) == {2}
    assert torch.equal(LOGITS, before)


def test_penalties_make_a_greedy_row_move_on() -> None:
    assert draw_many(Sampling(temperature=0, presence_penalty=1.5), 4) == [1, 2, 1, 1]
    assert draw_many(Sampling(temperature=0, frequency_penalty=2.0), 2) == [1, 2]


def test_biases_and_penalties_add_up() -> None:
    both = Sampling(
        temperature=0, presence_penalty=0.5, frequency_penalty=0.4, logit_bias=((2, 0.5),)
    )
    # 2.0 and 1.5 at first; each time a token is said it loses 0.4, the first time 0.5 more.
    assert draw_many(both, 5) == [1, 2, 1, 1, 2]


@given(st.integers(0, 4))
def test_logprobs_come_sorted_and_of_the_model(count: int) -> None:
    choice = choose(LOGITS, [Chooser(Sampling(temperature=2, seed=1, top_logprobs=count), 0)])[0]
    expected = torch.log_softmax(LOGITS[0], -1)
    assert choice.logprob == pytest.approx(float(expected[choice.token]))
    assert len(choice.top) == count
    assert [value for _, value in choice.top] == sorted((v for _, v in choice.top), reverse=True)
    if count == 4:
        assert math.fsum(math.exp(value) for _, value in choice.top) == pytest.approx(1)
