"""Incremental detokenization: complete characters only, and no part of a stop string."""

import re
from collections.abc import Callable, Sequence
from functools import cache

REPLACEMENT = "\ufffd"
# A character has at most four bytes. More undecodable tokens than this are invalid, not incomplete.
PENDING_MAX = 8
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")

Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """Decodes one sequence's tokens to text without incomplete characters.

    `decode` returns the text of token ids. Only the tokens since the last complete piece of text are
    decoded again, together with the piece before them, because many tokenizers decode a token
    differently at the beginning of a text.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._before: list[int] = []
        self._pending: list[int] = []
        self._before_text = ""

    def push(self, token: int) -> str:
        """Return the text that this token completes, which may be empty."""
        self._pending.append(token)
        text = self._decode([*self._before, *self._pending])
        if text.endswith(REPLACEMENT) and len(self._pending) <= PENDING_MAX:
            return ""
        return self._release(text)

    def flush(self) -> str:
        """Return the rest at the end of the sequence, without an incomplete character."""
        if not self._pending:
            return ""
        return self._release(self._decode([*self._before, *self._pending])).rstrip(REPLACEMENT)

    def _release(self, text: str) -> str:
        new = text[len(self._before_text) :]
        self._before, self._pending = self._pending, []
        self._before_text = self._decode(self._before)
        return new


class StopText:
    """Truncates a text at the first stop string and holds back a possible beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_found = False

    def push(self, text: str) -> str:
        """Return the text that may be sent now; after `is_found` always empty."""
        if self.is_found:
            return ""
        text = self._held + text
        self._held = ""
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.is_found = True
            return text[: min(found)]
        held = max((overlap(text, stop) for stop in self._stops), default=0)
        if held:
            self._held = text[-held:]
            return text[:-held]
        return text

    def flush(self) -> str:
        """Return the held-back text: the sequence ended before it became a stop string."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that is a prefix of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def piece_bytes(piece: str, text: str) -> list[int]:
    """Return the bytes of one token, given its name in the vocabulary and its text alone.

    A token that is part of a character has no text of its own: byte-level BPE then spells its bytes
    as letters, sentencepiece as `<0xE2>`.
    """
    if REPLACEMENT not in text:
        return list(text.encode())
    spelled = BYTE_PIECE.fullmatch(piece)
    if spelled:
        return [int(spelled[1], 16)]
    letters = _byte_of_letter()
    if all(letter in letters for letter in piece):
        return [letters[letter] for letter in piece]
    return list(text.encode())


@cache
def _byte_of_letter() -> dict[str, int]:
    """Return byte-level BPE's alphabet: printable bytes stand for themselves, others from U+0100 on.

    Source: GPT-2's `bytes_to_unicode`.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(0x100) if byte not in set(printable))
    letters.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return letters
