"""Texts in columns: only their own key opens them, where they belong, unchanged."""

import pytest

from tunewarden.artifacts import sealed_text
from tunewarden.errors import Error

SECRET, OTHER = bytes(32), bytes(31) + b"\1"


@pytest.mark.parametrize("text", ["", "a.jsonl", "Zoë Müller \U0001f600.txt", "x" * 255])
def test_a_text_comes_back_and_is_not_seen_in_its_sealed_form(text: str) -> None:
    sealed = sealed_text.seal(SECRET, "m_1", text)
    assert sealed_text.unseal(SECRET, "m_1", sealed) == text
    assert len(sealed) == len(text.encode()) + 28
    assert not text or text.encode() not in sealed
    assert sealed != sealed_text.seal(SECRET, "m_1", text), "two that are equal do not look so"


def test_another_key_another_place_or_another_byte_opens_nothing() -> None:
    sealed = sealed_text.seal(SECRET, "m_1", "a.jsonl")
    changed = [
        sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))
    ]
    attempts = [
        (OTHER, "m_1", sealed),
        (SECRET, "m_2", sealed),
        (SECRET, "m_1", sealed[:-1]),
        (SECRET, "m_1", b""),
        *((SECRET, "m_1", one) for one in changed),
    ]
    for secret, context, data in attempts:
        with pytest.raises(Error, match="damaged"):
            sealed_text.unseal(secret, context, data)
