"""What an answer must look like: a JSON schema, a regular expression, a grammar; as masks of the next tokens.

llguidance does the work (docs/decisions/0001): it compiles a `Constraint` for one tokenizer, and its matcher says
after every token which ones may follow. It releases the GIL while it compiles and while it computes a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llguidance
import msgspec
import numpy as np
import torch

from tunewarden.embedded_engine.fields import invalid
from tunewarden.errors import Error

# Of a schema, pattern or grammar.
CONSTRAINT_BYTES_MAX = 128 * 1024
REASON_CHARACTERS_MAX = 300
# Between two tokens of JSON: a space, or a line break with an indent. Without a bound a weak model that falls into
# writing blanks would do so to the end.
BLANK = r"(\n[ \t]{0,40}| )"
# They bound one mask's time, and a grammar's memory: far below the library's own, which take 20 ms and 500 MB.
LIMITS = llguidance.LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
BITS_A_WORD = 32

# A JSON schema; true takes anything, false nothing.
Schema = dict[str, Any] | bool


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must look like, not compiled yet. `param` is the parameter that errors name.

    `grammar` is in llguidance's own form.
    """

    grammar: str
    param: str

    @classmethod
    def of_schema(cls, schema: Schema, param: str, *, strict: bool = True) -> "Constraint":
        """JSON that follows a schema. If it is not strict, keywords that cannot be enforced are ignored."""
        return cls(
            _encoded({"grammars": [{"json_schema": _with_options(schema, strict=strict)}]}), param
        )

    @classmethod
    def of_regex(cls, pattern: str, param: str) -> "Constraint":
        """A text that a regular expression matches as a whole."""
        return cls(llguidance.LLMatcher.grammar_from_regex(pattern), param)

    @classmethod
    def of_choices(cls, choices: Sequence[str], param: str) -> "Constraint":
        """One of some texts."""
        listed = " | ".join(_encoded(choice) for choice in choices)
        return cls.of_lark(f"start: {listed}", param)

    @classmethod
    def of_lark(cls, text: str, param: str) -> "Constraint":
        """A grammar in llguidance's form of Lark, which begins at the rule `start`.

        A rule may embed a JSON schema (`json_rule`), and name a special token of the tokenizer without quotes, such as
        `<tool_call>`; one that the tokenizer does not have is an error when it is compiled.
        """
        return cls(_encoded({"grammars": [{"lark_grammar": text}]}), param)


def json_rule(schema: Schema, *, strict: bool = True) -> str:
    """Return a JSON schema as a part of a rule of a Lark grammar."""
    return f"%json {_encoded(_with_options(schema, strict=strict))}"


class Matcher:
    """Follows one sequence. Not thread-safe."""

    def __init__(self, matcher: llguidance.LLMatcher, words: int, param: str) -> None:
        """`words` is the length of a mask in 32 bits."""
        self.words = words
        self._matcher = matcher
        self._param = param
        self._is_dead = False

    def copy(self) -> "Matcher":
        """Return another one in the same state; cheap."""
        return Matcher(self._matcher.deep_copy(), self.words, self._param)

    def take(self, token: int) -> None:
        """Note the token that was chosen."""
        self._matcher.consume_token(token)

    @property
    def is_complete(self) -> bool:
        """Return whether nothing may follow but the end of the text."""
        return bool(self._matcher.is_stopped()) and self.problem is None

    @property
    def problem(self) -> Error | None:
        """Return why the sequence cannot go on."""
        if self._is_dead:
            return _refused("no token of this model continues the text", self._param)
        if self._matcher.is_error():
            return _refused("it is too complex", self._param)
        return None

    def fill(self, mask: np.ndarray[Any, np.dtype[np.uint32]]) -> None:
        """Write which tokens may follow, a bit each, into [words]."""
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)

    def die(self) -> None:
        """Note that no token may follow, although the text is not complete."""
        self._is_dead = True


class Compiler:
    """Compiles constraints for one tokenizer. Thread-safe."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_tokens: Sequence[int]) -> None:
        """`vocabulary` is the model's, which may be larger than the tokenizer's. Raises ValueError."""
        self._tokenizer = llguidance.LLTokenizer(
            tokenizer.to_str(),
            n_vocab=max(vocabulary, tokenizer.get_vocab_size(with_added_tokens=True)),
            eos_token=list(end_tokens) or None,
        )

    def compile(self, constraint: Constraint) -> Matcher:
        """Return a matcher at the begin of a text; takes long for a large constraint. Raises Error(INVALID)."""
        if len(constraint.grammar) > CONSTRAINT_BYTES_MAX:
            message = f"it is larger than {CONSTRAINT_BYTES_MAX} characters"
            raise _refused(message, constraint.param)
        matcher = llguidance.LLMatcher(
            self._tokenizer, constraint.grammar, log_level=0, limits=LIMITS
        )
        # The first mask takes longest, and says whether there is any text of this form.
        matcher.compute_bitmask()
        if matcher.is_error():
            raise _refused(matcher.get_error(), constraint.param)
        return Matcher(matcher, -(-self._tokenizer.vocab_size // BITS_A_WORD), constraint.param)


def forbidden(matchers: Sequence[Matcher], vocabulary: int) -> torch.Tensor:
    """Return which tokens must not follow, [rows, vocabulary]. Matchers that allow none are noted as dead."""
    masks = np.empty((len(matchers), matchers[0].words), np.uint32)
    for mask, matcher in zip(masks, matchers, strict=True):
        matcher.fill(mask)
        if not mask.any():
            matcher.die()
    bits = np.unpackbits(masks.view(np.uint8), axis=1, count=vocabulary, bitorder="little")
    return torch.from_numpy(bits == 0)


def _with_options(schema: Schema, *, strict: bool) -> Schema:
    if isinstance(schema, bool):
        return schema
    return {**schema, "x-guidance": {"whitespace_pattern": BLANK, "lenient": not strict}}


def _refused(reason: str, param: str) -> Error:
    reason = " ".join(reason.split())
    if len(reason) > REASON_CHARACTERS_MAX:
        reason = f"{reason[:REASON_CHARACTERS_MAX]}…"
    return invalid(f"Invalid '{param}': {reason}.", param, "invalid_value")


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()
