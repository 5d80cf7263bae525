"""Methods and hyperparameters: ranges, what is not offered, and which of two places counts."""

import pytest

from tunewarden.errors import Error, Kind
from tunewarden.finetuning.hyperparameters import Method, parse

AUTO = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}


def test_nothing_given_means_supervised_with_automatic_values() -> None:
    assert parse(None, None) == (Method.SUPERVISED, AUTO)
    assert parse({"type": "dpo"}, None) == (Method.DPO, {**AUTO, "beta": "auto"})


def test_the_block_of_the_chosen_method_counts_alone() -> None:
    given = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}},
        "dpo": {"hyperparameters": {"n_epochs": 4, "beta": 0.5}},
        "reinforcement": {"grader": {"type": "string_check"}, "hyperparameters": {"n_epochs": 5}},
    }
    assert parse(given, None) == (Method.SUPERVISED, {**AUTO, "n_epochs": 3})
    assert parse({**given, "type": "dpo"}, None)[1] == {**AUTO, "n_epochs": 4, "beta": 0.5}


def test_the_deprecated_place_is_read_too() -> None:
    assert parse(None, {"n_epochs": 2})[1]["n_epochs"] == 2
    assert parse({"type": "supervised"}, {"batch_size": 8})[1]["batch_size"] == 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_epochs", 1),
        ("n_epochs", 50),
        ("batch_size", 256),
        ("learning_rate_multiplier", 0.001),
        ("learning_rate_multiplier", 2),
        ("beta", 2),
        ("beta", 0.1),
    ],
)
def test_values_at_the_ends_of_their_ranges_are_accepted(name: str, value: float) -> None:
    assert parse({"type": "dpo", "dpo": {"hyperparameters": {name: value}}}, None)[1][name] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_epochs", 0),
        ("n_epochs", 51),
        ("n_epochs", 2.0),
        ("n_epochs", True),
        ("n_epochs", "3"),
        ("batch_size", 257),
        ("learning_rate_multiplier", 0),
        pytest.param("learning_rate_multiplier", 10**400, id="beyond a float"),
        ("learning_rate_multiplier", -1.0),
        ("learning_rate_multiplier", float("inf")),
        ("beta", 0.0),
        ("beta", 2.1),
        ("beta", []),
    ],
)
def test_values_beyond_their_ranges_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(Error) as caught:
        parse({"type": "dpo", "dpo": {"hyperparameters": {name: value}}}, None)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "method")
    assert f"'{name}' must be \"auto\" or " in caught.value.message


@pytest.mark.parametrize(
    ("method", "deprecated", "told"),
    [
        ({"type": "reinforcement"}, None, "'reinforcement' is not supported"),
        ({"type": "magic"}, None, "Unknown method type 'magic'"),
        ({"type": []}, None, "Unknown method type []"),
        ({}, None, "Unknown method type None"),
        ("dpo", None, "'method' must be an object"),
        ({"type": "dpo", "dpo": []}, None, "'method.dpo' must be an object"),
        ({"type": "dpo", "dpo": {"beta": 1}}, None, "Unknown key 'beta' in 'method.dpo'"),
        ({"type": "dpo", "other": {}}, None, "Unknown key 'other' in 'method'"),
        (None, {"beta": 1}, "Unknown hyperparameter 'beta' for the method 'supervised'"),
        (None, [], "'hyperparameters' must be an object"),
        (
            {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
            {"n_epochs": 4},
            "'n_epochs' is given twice",
        ),
    ],
)
def test_what_is_not_offered_is_refused_clearly(
    method: object, deprecated: object, told: str
) -> None:
    with pytest.raises(Error) as caught:
        parse(method, deprecated)
    assert told in caught.value.message
