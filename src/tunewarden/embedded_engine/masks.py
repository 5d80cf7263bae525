"""Which tokens may follow in the rows that a constraint holds; their time is counted (mask_time.py).

They are computed between two steps, not beside the model in a thread of their own: that made the model's step 1 ms
longer, which is five times what they take, because both want the GIL (docs/decisions/0032).
"""

from collections.abc import Sequence

import torch

from tunewarden.embedded_engine.constraints import Matcher
from tunewarden.embedded_engine.mask_time import Stopwatch

BYTES = torch.arange(256)[:, None]
# [256, 8]: what is added to the logits of eight tokens, for a byte that has a bit for each that may follow.
ADDED = torch.where(BYTES >> torch.arange(8) & 1 == 1, 0.0, -torch.inf)


def allowed(logits: torch.Tensor, rows: Sequence[int], matchers: Sequence[Matcher]) -> torch.Tensor:
    """Return the logits [rows, vocabulary] with -inf for the tokens that must not follow in some rows.

    A matcher that lets none follow has a problem then.
    """
    count, vocabulary = logits.shape
    # Also of the rows that nothing holds, where all may follow: so no step is needed that picks or spreads rows.
    bits = torch.full((count, matchers[0].words), -1, dtype=torch.int32)
    address, length = bits.data_ptr(), bits.stride(0) * bits.itemsize
    watch = Stopwatch()
    for row, matcher in zip(rows, matchers, strict=True):
        matcher.fill(address + row * length, length)
        watch.lap()
    for matcher, (worked, waited) in zip(matchers, watch.shares(), strict=True):
        matcher.mask_took(worked, waited)
    has_some = bits.any(1)
    if not has_some.all():
        for row, matcher in zip(rows, matchers, strict=True):
            if not has_some[row]:
                matcher.end()
    each = bits.view(torch.uint8).view(-1).int()
    added = ADDED.index_select(0, each).view(count, -1)[:, :vocabulary]
    return logits + added.to(logits.dtype)


def follow(matchers: Sequence[Matcher], tokens: Sequence[int]) -> None:
    """Note the token that was chosen for each."""
    watch = Stopwatch()
    for matcher, token in zip(matchers, tokens, strict=True):
        matcher.take(token)
        watch.lap()
    for matcher, (worked, waited) in zip(matchers, watch.shares(), strict=True):
        matcher.token_took(worked, waited)
