"""How many connections a worker accepts where the system gives it few descriptors."""

import logging

import pytest

from tunewarden.config import Config
from tunewarden.server.worker import OWN_DESCRIPTORS, within


def test_a_worker_accepts_as_many_connections_as_it_has_pairs_of_descriptors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert within(Config(), OWN_DESCRIPTORS + 2 * 450).connections_max == 450
    assert caplog.records == [], "nobody chose the default"


def test_a_choice_that_the_descriptors_do_not_allow_is_cut_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert within(Config(connections_max=5000), 1024).connections_max == 448
    assert "connections_max is 5000, but a limit of 1024 open files allows 448" in caplog.text


def test_what_the_descriptors_allow_is_left_alone() -> None:
    settings = Config(connections_max=400)
    assert within(settings, 1024) is settings


def test_a_worker_accepts_one_connection_whatever_the_limit() -> None:
    assert within(Config(), 10).connections_max == 1
