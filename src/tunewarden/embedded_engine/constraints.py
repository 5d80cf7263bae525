"""What an answer must look like: a JSON schema, a regular expression, a grammar; as masks of the next tokens.

llguidance does the work (docs/decisions/0001): it compiles a `Constraint` for one tokenizer, and its matcher says
after every token which ones may follow. It releases the GIL while it compiles and while it computes a mask. What
could crash or hold it is found in a process of its own (`trial.py`).
"""

import hashlib
import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llguidance
import msgspec

from tunewarden.clock import SystemClock
from tunewarden.embedded_engine.closed_schemas import closed
from tunewarden.embedded_engine.mask_time import Budget, Budgets, RowTime
from tunewarden.embedded_engine.number_bounds import with_near_bounds
from tunewarden.embedded_engine.trial import (
    LIMITS,
    MASK_SECONDS,
    STUCK_BY,
    TOO_COMPLEX,
    Asked,
    Trial,
    Vocabulary,
)
from tunewarden.errors import Error
from tunewarden.invalid_values import invalid

SHOWN_LINE = re.compile(r"\s*(\d+ \||\^+\s*$)")
# A range beyond what it takes (number_bounds.py).
RANGE = re.compile(r"Failed to generate regex for (?:integer|float) range.*")
FAR_RANGE = "the bounds of a number must leave a range within -1e18 and 1e18"
# The library names an option of its own.
ONE_OF = re.compile(r"oneOf constraints are not supported\..*")
OVERLAPPING_ONE_OF = (
    "the branches of a 'oneOf' cannot be told apart well enough; use 'anyOf' instead"
)
LINE_NUMBER = re.compile(r"^at \d+\(\d+\): ")
# Of a schema, pattern or grammar.
CONSTRAINT_CHARACTERS_MAX = 128 * 1024
REASON_CHARACTERS_MAX = 300
# Between two tokens of JSON: a space, or a line break with an indent. Without a bound a weak model that falls into
# writing blanks would do so to the end.
BLANK = r"(\n[ \t]{0,40}| )"
# A mask beyond that ends the request: others wait for it. In time of the processor.
STEP_SECONDS = 2 * MASK_SECONDS
TOO_SLOW = "it is too complex: the tokens that may follow take too long to find"
STUCK = "no token of this model continues the text"
# Digests of constraints that have passed their trial.
PASSED_MAX = 1024
# The name of a grammar within another.
ANSWER = "answer"

# A JSON schema; true takes anything, false nothing.
Schema = dict[str, Any] | bool


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must look like, not compiled yet. Errors name the parameter `param`, and call this `subject`.

    `grammar` is in llguidance's own form, or perhaps in GBNF's (`of_grammar`), which takes long to tell.
    """

    grammar: str
    param: str
    subject: str = ""
    may_be_gbnf: bool = False

    @classmethod
    def of_schema(
        cls,
        schema: Schema,
        param: str,
        *,
        strict: bool = True,
        compact: bool = False,
        subject: str = "",
    ) -> "Constraint":
        """JSON that follows a schema, `closed`. If it is not strict, keywords that cannot be enforced are ignored."""
        options = _with_options(schema, strict=strict, compact=compact)
        return cls(_encoded({"grammars": [{"json_schema": options}]}), param, subject)

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

    @classmethod
    def of_grammar(cls, text: str, param: str) -> "Constraint":
        """A grammar in Lark's form, or in GBNF's, which has `::=` and begins at the rule `root`."""
        return cls(text, param, may_be_gbnf=True)


def either(rules: Callable[[str], str], other: Constraint, param: str) -> Constraint:
    """Return a constraint that takes what one or another takes.

    `rules` returns a grammar in llguidance's form of Lark, and gets how to refer to the other one, which must not be
    perhaps in GBNF's form.
    """
    answer, *_ = msgspec.json.decode(other.grammar)["grammars"]
    grammars = [{"lark_grammar": rules(f"@{ANSWER}")}, {**answer, "name": ANSWER}]
    return Constraint(_encoded({"grammars": grammars}), param)


def json_rule(schema: Schema, *, strict: bool = True) -> str:
    """Return a JSON schema as a part of a rule of a Lark grammar."""
    return f"%json {_encoded(_with_options(schema, strict=strict))}"


class Matcher:
    """Follows one sequence. `mask` says which tokens may follow, a bit each, the first in the lowest. Not thread-safe.

    Nothing is found of what may follow the last of so many tokens: none does.
    """

    def __init__(
        self,
        matcher: llguidance.LLMatcher,
        mask: bytes,
        constraint: Constraint,
        budget: Budget,
        tokens: float = math.inf,
    ) -> None:
        self.mask = mask
        self._left = tokens
        self._matcher = matcher
        self._constraint = constraint
        self._time = RowTime(budget)
        self._is_stopped = False
        self._reason = ""

    def copy(self, tokens: float = math.inf) -> "Matcher":
        """Return another one at the begin of a text, as this one is, that has at most so many tokens; cheap."""
        matcher = self._matcher.deep_copy()
        return Matcher(matcher, self.mask, self._constraint, self._time.budget, tokens)

    def take(self, token: int) -> None:
        """Note the token that was chosen."""
        self._matcher.consume_token(token)
        self._left -= 1
        if self._left > 0:
            self.mask = self._matcher.compute_bitmask()
        self._is_stopped = self._matcher.is_stopped()

    def took(self, worked: float, waited: float) -> None:
        """Note the seconds of processor time that the last token took, and how long others waited for it."""
        if worked > STEP_SECONDS or not self._time.spend(worked, waited):
            self._reason = TOO_SLOW

    @property
    def is_complete(self) -> bool:
        """Return whether nothing may follow but the end of the text."""
        return self._is_stopped and not self._matcher.is_error()

    @property
    def problem(self) -> Error | None:
        """Return why the sequence cannot go on."""
        if self._reason:
            return refused(self._constraint, self._reason)
        if not self._is_stopped or self.is_complete:
            return None
        is_stuck = STUCK_BY in self._matcher.get_error()
        return refused(self._constraint, STUCK if is_stuck else TOO_COMPLEX)


class Compiler:
    """Compiles constraints for one tokenizer. Thread-safe."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_tokens: Sequence[int]) -> None:
        """`vocabulary` is the model's, which may be larger than the tokenizer's. Raises ValueError."""
        tokens = max(vocabulary, tokenizer.get_vocab_size(with_added_tokens=True))
        self._vocabulary = Vocabulary(tokenizer.to_str(), tokens, end_tokens)
        self._tokenizer = self._vocabulary.load()
        self._budgets = Budgets(SystemClock(), tokens)
        # As many as run at once; the last that was used comes first.
        self._trials: list[Trial] = []
        self._idle: deque[Trial] = deque()
        self._passed: dict[bytes, None] = {}

    def compile(self, constraint: Constraint, asked_by: str = "") -> Matcher:
        """Return a matcher at the begin of a text; takes long for a large constraint.

        The time of its masks is that of an organization, `asked_by`. Raises Error(INVALID).
        """
        if len(constraint.grammar) > CONSTRAINT_CHARACTERS_MAX:
            raise refused(constraint, f"it is longer than {CONSTRAINT_CHARACTERS_MAX} characters")
        matcher = llguidance.LLMatcher(
            self._tokenizer, self._tried(constraint), log_level=0, limits=LIMITS
        )
        mask = matcher.compute_bitmask()  # the first one takes longest
        if matcher.is_error():
            raise refused(constraint, matcher.get_error())
        return Matcher(matcher, mask, constraint, self._budgets.of(asked_by))

    def close(self) -> None:
        """End the processes of the trials."""
        for trial in self._trials:
            trial.stop()

    def _tried(self, constraint: Constraint) -> str:
        """Return the grammar in the library's form after its trial. Raises Error(INVALID)."""
        digest = hashlib.sha256(constraint.grammar.encode()).digest()
        if digest in self._passed:
            return constraint.grammar
        trial = self._free_trial()
        try:
            tried = trial.run(Asked(constraint.grammar, constraint.may_be_gbnf))
        finally:
            self._idle.append(trial)
        if tried.reason:
            raise refused(constraint, tried.reason)
        if not constraint.may_be_gbnf:
            self._passed[digest] = None
            if len(self._passed) > PASSED_MAX:
                self._passed.pop(next(iter(self._passed.copy())), None)
        return tried.grammar

    def _free_trial(self) -> Trial:
        try:
            return self._idle.pop()
        except IndexError:
            trial = Trial(self._vocabulary)
            self._trials.append(trial)
            return trial


def refused(constraint: Constraint, reason: str) -> Error:
    """Return the error for a constraint that cannot be kept."""
    # The library shows the lines of the grammar, which is of our making.
    lines = [line for line in reason.splitlines() if not SHOWN_LINE.match(line)]
    reason = LINE_NUMBER.sub("", " ".join(" ".join(lines).split()))
    reason = ONE_OF.sub(OVERLAPPING_ONE_OF, RANGE.sub(FAR_RANGE, reason))
    if len(reason) > REASON_CHARACTERS_MAX:
        reason = f"{reason[:REASON_CHARACTERS_MAX]}…"
    subject = constraint.subject or f"'{constraint.param}'"
    return invalid(f"Invalid {subject}: {reason}.", constraint.param, "invalid_value")


def _with_options(schema: Schema, *, strict: bool, compact: bool = False) -> Schema:
    if isinstance(schema, bool):
        return schema
    blank = {"whitespace_flexible": False} if compact else {"whitespace_pattern": BLANK}
    return {**with_near_bounds(closed(schema)), "x-guidance": {**blank, "lenient": not strict}}


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()
