"""Sampling of the next token of each row: greedy or random, reproducible by seed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from tunewarden.embedded_engine.constraints import Matcher
from tunewarden.embedded_engine.masks import follow, hold
from tunewarden.ids import random_bytes

# Below this temperature sampling equals greedy decoding, and the division overflows.
GREEDY_BELOW = 1e-5
DRAWS_AT_ONCE = 64
SEED_MASK = 2**63 - 1
# OpenAI's number for a token that is very unlikely, and vLLM's for one that may not come.
LOGPROB_MIN = -9999.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters. `top_logprobs` is the number of alternatives to report, None for no logprobs."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None
    # Draw from so many of the likeliest tokens only; 0: from all.
    top_k: int = 0
    # Draw from tokens that are at least so likely, as a share of the likeliest one, only.
    min_p: float = 0.0
    # Divides the positive logits of tokens in the prompt or the text so far, and multiplies the negative ones.
    repetition_penalty: float = 1.0
    # Tokens before which nothing ends the text.
    min_tokens: int = 0

    @property
    def truncates(self) -> bool:
        """Return whether it draws from some of the tokens only."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


@dataclass(frozen=True, slots=True)
class Choice:
    """A token; if requested, with its logprob (natural log) and the most likely ones, best first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Chooser:
    """The sampling state of one row: parameters, random generator, and previous tokens.

    `ends` are the tokens that end the text; `matcher` says which tokens may come, if not all.
    """

    def __init__(
        self,
        sampling: Sampling,
        index: int,
        prompt: Sequence[int] = (),
        ends: Iterable[int] = (),
        matcher: Matcher | None = None,
    ) -> None:
        self.sampling = sampling
        self.matcher = matcher
        self.is_greedy = sampling.temperature < GREEDY_BELOW
        self.truncates = sampling.truncates
        self._adds = bool(
            sampling.logit_bias or sampling.presence_penalty or sampling.frequency_penalty
        )
        self._repels = sampling.repetition_penalty != 1
        self._left = sampling.min_tokens
        self.adjusts = self._adds or self._repels or self._left > 0
        self._prompt = prompt
        self._ends = list(ends) if self._left else []
        self._said: set[int] = set()
        # [vocabulary], float32: biases minus penalties. Cached, so that a step's cost does not depend on
        # the length of the completion and of the list of biases.
        self._adjustment: torch.Tensor | None = None
        # [vocabulary], float32: the repetition penalty of tokens in prompt or text, one of others.
        self._divisors: torch.Tensor | None = None
        self._draws: list[float] = []
        seed = int.from_bytes(random_bytes(8), "big") if sampling.seed is None else sampling.seed
        self._generator = torch.Generator().manual_seed((seed + index) & SEED_MASK)

    def adjust(self, logits: torch.Tensor) -> None:
        """Apply the repetition penalty, biases and other penalties to one row's logits [vocabulary], in place."""
        if self._repels:
            if self._divisors is None:
                self._divisors = torch.ones_like(logits)
                self._divisors[list(set(self._prompt))] = self.sampling.repetition_penalty
            logits.copy_(torch.where(logits > 0, logits / self._divisors, logits * self._divisors))
        if self._adds:
            if self._adjustment is None:
                self._adjustment = torch.zeros_like(logits)
                if self.sampling.logit_bias:
                    tokens, biases = zip(*self.sampling.logit_bias, strict=True)
                    self._adjustment[list(tokens)] = torch.tensor(biases, dtype=logits.dtype)
            logits += self._adjustment
        if self._left and self._ends:
            ends = logits[self._ends]
            logits[self._ends] = -torch.inf
            if self.matcher is not None and logits.max() == -torch.inf:
                logits[self._ends] = ends  # nothing else may follow, so soon it is

    def draw(self) -> float:
        """Return the row's next number in [0, 1)."""
        if not self._draws:
            self._draws = torch.rand(DRAWS_AT_ONCE, generator=self._generator).tolist()
        return self._draws.pop()

    def note(self, token: int) -> None:
        """Record a chosen token for the penalties."""
        if self._left:
            self._left -= 1
            self.adjusts = self._adds or self._repels or self._left > 0
        if self._divisors is not None:
            self._divisors[token] = self.sampling.repetition_penalty
        if self._adjustment is None:
            return
        penalty = self.sampling.frequency_penalty
        if token not in self._said:
            self._said.add(token)
            penalty += self.sampling.presence_penalty
        if penalty:
            self._adjustment[token] -= penalty


def choose(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[Choice]:
    """Return the next token of each row. `logits`: [rows, vocabulary], changed in rows that have a matcher only.

    A row whose matcher has a problem gets any token.
    """
    held = [(row, one.matcher) for row, one in enumerate(choosers) if one.matcher is not None]
    if held:
        rows, matchers = zip(*held, strict=True)
        hold(logits, rows, matchers)
    adjusted = logits
    if any(chooser.adjusts for chooser in choosers):
        adjusted = logits.clone()
        for row, chooser in enumerate(choosers):
            if chooser.adjusts:
                chooser.adjust(adjusted[row])
    tokens = _tokens(adjusted, choosers)
    if held:
        follow(matchers, [tokens[row] for row in rows])
    choices = []
    for row, (chooser, token) in enumerate(zip(choosers, tokens, strict=True)):
        chooser.note(token)
        asked = chooser.sampling.top_logprobs
        choices.append(Choice(token) if asked is None else _reported(logits[row], token, asked))
    return choices


def _tokens(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """Return each row's token: the likeliest one, or one that is drawn."""
    kinds: dict[Callable[[torch.Tensor, Sequence[Chooser]], list[int]], list[int]] = {}
    # Apart, so that rows that draw from all tokens pay nothing for the others, and draw the same in any company.
    for row, chooser in enumerate(choosers):
        draw = _draw_truncated if chooser.truncates else _draw
        kinds.setdefault(_likeliest if chooser.is_greedy else draw, []).append(row)
    tokens = [0] * len(choosers)
    for find, rows in kinds.items():
        # A copy of all rows takes milliseconds with a real vocabulary.
        some = logits if len(rows) == len(choosers) else logits[rows]
        for row, token in zip(rows, find(some, [choosers[row] for row in rows]), strict=True):
            tokens[row] = token
    return tokens


def _likeliest(logits: torch.Tensor, _choosers: Sequence[Chooser]) -> list[int]:
    return _listed(logits.argmax(-1))


def _draw(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """Draw from all tokens. [rows, vocabulary]."""
    # In place: 32 rows of a real vocabulary are 39 MB, and the kernel takes longer to find so much than this does.
    shares = _over_temperature(logits, choosers)
    shares.sub_(shares.amax(-1, keepdim=True)).exp_()  # softmax's, but for their sum
    return _listed(_picked(shares, choosers))


def _draw_truncated(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """Draw from some of the tokens."""
    shares = torch.softmax(_over_temperature(logits, choosers), -1)
    shares, order = shares.sort(dim=-1, descending=True, stable=True)
    shares = _truncated(shares, [chooser.sampling for chooser in choosers])
    return _listed(order.gather(-1, _picked(shares, choosers)))


def _listed(tokens: torch.Tensor) -> list[int]:
    listed: list[int] = tokens.flatten().tolist()
    return listed


def _over_temperature(logits: torch.Tensor, choosers: Sequence[Chooser]) -> torch.Tensor:
    temperatures = torch.tensor([[chooser.sampling.temperature] for chooser in choosers])
    return logits.to(torch.float64, copy=True).div_(temperatures)


def _picked(shares: torch.Tensor, choosers: Sequence[Chooser]) -> torch.Tensor:
    """Pick by inverting the cumulative distribution. `shares` [rows, vocabulary] of any sum are overwritten."""
    reached = shares.cumsum_(-1)
    draws = torch.tensor([[chooser.draw()] for chooser in choosers], dtype=torch.float64)
    picked = torch.searchsorted(reached, draws * reached[:, -1:], right=True)
    return picked.clamp(max=shares.shape[-1] - 1)


def _truncated(shares: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Return sorted shares without those that min_p, top_k and top_p leave out, in this order, as in vLLM."""
    count = shares.shape[-1]
    least = torch.tensor([[one.min_p] for one in samplings], dtype=shares.dtype)
    most = torch.tensor([[one.top_k or count] for one in samplings])
    bounds = torch.tensor([[one.top_p] for one in samplings], dtype=shares.dtype)
    out = (shares < least * shares[:, :1]) | (torch.arange(count) >= most)
    shares = shares.masked_fill(out, 0.0)
    shares /= shares.sum(-1, keepdim=True)
    before = shares.cumsum(-1) - shares
    before[:, 0] = -1.0  # the most likely token always stays, even with top_p 0
    # A row without top_p keeps what rounding adds up to one early.
    return shares.masked_fill((before >= bounds) & (bounds < 1), 0.0)


def _reported(logits: torch.Tensor, token: int, alternatives: int) -> Choice:
    """Return a choice with the model's log probabilities, before temperature and biases.

    They are shared among the tokens that may follow, if not all may.
    """
    logprobs = torch.log_softmax(logits.float(), -1).clamp(min=LOGPROB_MIN)
    best = logprobs.topk(alternatives) if alternatives else None
    top = (
        () if best is None else tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    )
    return Choice(token, float(logprobs[token]), top)


def reported(logits: torch.Tensor, tokens: Sequence[int], sampling: Sampling) -> list[Choice]:
    """Return given tokens with the model's log probabilities. `logits`: [tokens, vocabulary]."""
    if not tokens:
        return []
    logprobs = torch.log_softmax(logits.float(), -1)
    given = logprobs.gather(-1, torch.tensor(tokens)[:, None])[:, 0].tolist()
    best = logprobs.topk(sampling.top_logprobs or 0)
    tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Choice(token, logprob, tuple(zip(*top, strict=True)))
        for token, logprob, top in zip(tokens, given, tops, strict=True)
    ]
