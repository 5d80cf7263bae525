"""The names of fine-tuned models, as OpenAI and Azure give them."""

import pytest

from tunewarden.migration import deadlines


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("ft:gpt-4o-mini-2024-07-18:acme:support:AbCd1234", "gpt-4o-mini-2024-07-18"),
        ("curie:ft-acme-2022-11-30-12-00-00", "curie"),
        ("gpt-4o-mini-2024-07-18.ft-0e208cf33a6a466994aff31a08aba678", "gpt-4o-mini-2024-07-18"),
        ("gpt-35-turbo-0613.ft-b044a9d3cf9c4228b5d393567f693b83-support", "gpt-35-turbo-0613"),
    ],
)
def test_the_base_stands_in_a_fine_tuned_models_name(model: str, base: str) -> None:
    assert deadlines.is_fine_tuned(model)
    assert deadlines.base_of(model) == base
    assert not deadlines.is_fine_tuned(base)
    assert deadlines.base_of(base) == base
