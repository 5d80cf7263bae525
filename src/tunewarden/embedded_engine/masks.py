"""Which tokens may follow in the rows that a constraint holds; the time that this takes is counted (mask_time.py).

That is found between two steps, not beside the model in a thread of its own: that made the model's step 1 ms longer,
which is five times what it takes, because both want the GIL (docs/decisions/0032). Everything here comes after a step of
the model, when no cache of the processor holds it, so each operation on tensors costs several times what it does alone.
"""

from collections.abc import Sequence

import torch

from tunewarden.embedded_engine.constraints import Matcher
from tunewarden.embedded_engine.mask_time import Stopwatch

BYTES = torch.arange(256)[:, None]
# [256, 8]: what is added to the logits of eight tokens, for a byte that has a bit for each that may follow.
ADDED = torch.where(BYTES >> torch.arange(8) & 1 == 1, 0.0, -torch.inf)


def hold(logits: torch.Tensor, rows: Sequence[int], matchers: Sequence[Matcher]) -> None:
    """Make the logits [rows, vocabulary] -inf, in place, for the tokens that must not follow in some rows.

    The rows are in order. Those before the first and behind the last one cost nothing.
    """
    first, count = rows[0], rows[-1] - rows[0] + 1
    masks = [matcher.mask for matcher in matchers]
    if len(masks) < count:  # all may follow in the rows between
        held, masks = masks, [b"\xff" * len(masks[0])] * count
        for row, mask in zip(rows, held, strict=True):
            masks[row - first] = mask
    each = torch.frombuffer(bytearray().join(masks), dtype=torch.uint8).int()
    added = ADDED.index_select(0, each).view(count, -1)
    logits[first : first + count] += added[:, : logits.shape[1]]


def follow(matchers: Sequence[Matcher], tokens: Sequence[int]) -> None:
    """Note the token that was chosen for each, and find which ones may follow it."""
    watch = Stopwatch()
    for matcher, token in zip(matchers, tokens, strict=True):
        matcher.take(token)
        watch.lap()
    for matcher, (worked, waited) in zip(matchers, watch.shares(), strict=True):
        matcher.took(worked, waited)
