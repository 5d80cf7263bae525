"""What gateway and engine tell each other: what is refused, what is skipped, which version is spoken."""

import msgspec
import pytest

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import (
    EVICTIONS_MAX,
    VERSION,
    EvictedAdapter,
    EvictionAnswer,
    EvictionRequest,
    LoadedBase,
    NewAdapter,
    NewBase,
    Refusal,
    State,
    decoded,
    version_in,
)

SEEN = EvictedAdapter("m_1", was_loaded=True, aborted=2, residue=0.0)
SAID = (
    NewBase("base", "/somewhere"),
    NewAdapter("m_1", "base", "/somewhere"),
    EvictionRequest(["m_1", "m_2"]),
    EvictionAnswer(VERSION, "one", [SEEN]),
    State(VERSION, 1, "one", [LoadedBase("base", ["m_1"])], ["m_0"]),
)


@pytest.mark.parametrize("message", SAID, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: msgspec.Struct) -> None:
    assert decoded(msgspec.json.encode(message), type(message)) == message


@pytest.mark.parametrize("message", SAID[:3], ids=lambda message: type(message).__name__)
def test_a_request_for_more_than_is_known_is_refused(message: msgspec.Struct) -> None:
    sent = msgspec.json.encode(msgspec.to_builtins(message) | {"also": 1})
    with pytest.raises(ValueError, match="not a message"):
        decoded(sent, type(message))


@pytest.mark.parametrize("message", SAID[3:], ids=lambda message: type(message).__name__)
def test_an_answer_may_say_more_than_is_known(message: msgspec.Struct) -> None:
    sent = msgspec.json.encode(msgspec.to_builtins(message) | {"also": 1})
    assert decoded(sent, type(message)) == message


@pytest.mark.parametrize("count", [0, EVICTIONS_MAX + 1])
def test_an_eviction_of_none_or_too_many_is_refused(count: int) -> None:
    sent = msgspec.json.encode({"names": ["m_1"] * count})
    with pytest.raises(ValueError, match="not a message"):
        decoded(sent, EvictionRequest)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b'{"error": {"message": "\xff"}}'])
def test_what_is_no_message_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a message of the kind Refusal"):
        decoded(body, Refusal)


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (msgspec.json.encode(SAID[3]), VERSION),
        (msgspec.json.encode(SAID[4]), VERSION),
        (b'{"incarnation": "one", "was_loaded": true, "aborted": 0, "residue": 0.0}', 0),
        (b'{"version": 2, "evictions": {"m_1": "done"}}', 2),
    ],
)
def test_the_version_is_read_whatever_else_an_answer_says(body: bytes, version: int) -> None:
    assert version_in(body) == version


@pytest.mark.parametrize("name", ["m_1", "a/b", "a b%2F", "ü"])
def test_the_path_of_an_abort_names_one_adapter(name: str) -> None:
    assert paths.name_in_abort_path(paths.abort_path(name)) == name


@pytest.mark.parametrize("path", [paths.ADAPTERS, f"{paths.ADAPTERS}/a/b/abort", "/v1/abort"])
def test_other_paths_abort_nothing(path: str) -> None:
    assert paths.name_in_abort_path(path) is None
