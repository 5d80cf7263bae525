"""How alike two answers to the same question are, and many of them together. Pure.

Each figure is counted where it means something: fields where the answer there is JSON, calls where it calls a tool, labels
where it is short and has logprobs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

Object = dict[str, Any]
# The measures that a threshold can be given for.
EXACT, JSON, FIELDS, TOOLS, LABELS = MEASURES = ("exact", "json", "fields", "tools", "labels")
# A longer answer is no label.
LABEL_LENGTH_MAX = 40


def of_pair(there: Mapping[str, Any], here: Mapping[str, Any]) -> Object:
    """Return the figures of two answers, each with a `status` and, if that is 200, a `response`."""
    old, new = _choice(there), _choice(here)
    if old is None or new is None:
        return {"refused_there": old is None, "refused_here": new is None}
    before, after = _text(old), _text(new)
    found: Object = {
        "refused_there": _refuses(old),
        "refused_here": _refuses(new),
        EXACT: before == after and _calls(old) == _calls(new),
        "length": len(after) / len(before) if before else None,
    }
    known = _parsed(before)
    if isinstance(known, dict | list):
        other = _parsed(after)
        found[JSON] = isinstance(other, dict | list)
        found[FIELDS] = _agreement(known, other)
    if calls := _calls(old):
        found[TOOLS] = calls == _calls(new)
    if 0 < len(before) <= LABEL_LENGTH_MAX and "\n" not in before:
        chances = [_chance(before, one) for one in (old, new)]
        if chances[0] is not None and chances[1] is not None:
            found[LABELS] = before == after
            found["chance_there"], found["chance_here"] = chances
    return found


def together(pairs: Sequence[Mapping[str, Any]]) -> Object:
    """Return the figures of many pairs: for each measure how often it was taken, and its mean."""
    found: Object = {"answers": len(pairs)}
    for name in MEASURES:
        taken = [float(one[name]) for one in pairs if name in one]
        found[name] = {"of": len(taken), "share": fmean(taken) if taken else None}
    lengths = [one["length"] for one in pairs if one.get("length") is not None]
    found["length"] = median(lengths) if lengths else None
    differences = [
        abs(one["chance_there"] - one["chance_here"]) for one in pairs if "chance_here" in one
    ]
    found["chance_difference"] = fmean(differences) if differences else None
    for name in ("refused_there", "refused_here"):
        found[name] = sum(bool(one[name]) for one in pairs)
    return found


def below(figures: Mapping[str, Any], thresholds: Mapping[str, float]) -> list[str]:
    """Return the measures that are below their threshold; what was never taken is, too."""
    shares = {name: figures[name]["share"] for name in thresholds}
    return [name for name, least in thresholds.items() if (shares[name] or 0.0) < least]


def _choice(answer: Mapping[str, Any]) -> Object | None:
    """Return the first choice of an answer; None if it was refused, or is none."""
    response = answer.get("response")
    choices = response.get("choices") if isinstance(response, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) and isinstance(first.get("message"), dict) else None


def _text(choice: Object) -> str:
    content = choice["message"].get("content")
    return content.strip() if isinstance(content, str) else ""


def _refuses(choice: Object) -> bool:
    return bool(choice["message"].get("refusal"))


def _calls(choice: Object) -> list[tuple[Any, Any]]:
    """Return the names and arguments of the tools that are called."""
    calls = choice["message"].get("tool_calls")
    functions = [
        one.get("function") or {}
        for one in (calls if isinstance(calls, list) else [])
        if isinstance(one, dict)
    ]
    return [(one.get("name"), _parsed(str(one.get("arguments")))) for one in functions]


def _parsed(text: str) -> object:
    """Return what a text is as JSON; the text if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _agreement(known: object, other: object) -> float:
    """Return the share of the values in `known` that stand at the same place in `other`."""
    wanted = dict(_values(known, ()))
    there = dict(_values(other, ()))
    same = [place for place, value in wanted.items() if there.get(place, _NOTHING) == value]
    return len(same) / len(wanted)


_NOTHING = object()


def _values(value: object, place: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], Any]]:
    """Return the values in a JSON value with their places; an empty list or object is one too."""
    inner: Sequence[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    if not inner:
        # True is no 1, and 1 no 1.0.
        return [(place, (type(value), value))]
    return [one for name, part in inner for one in _values(part, (*place, name))]


def _chance(label: str, choice: Object) -> float | None:
    """Return how likely an answer was to begin as the label does, from its first token's logprobs; None without them.

    Tokens differ between models, so that what counts are those that the label begins with.
    """
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = tokens[0] if isinstance(tokens, list) and tokens else None
    if not isinstance(first, dict):
        return None
    options = {
        one["token"]: one["logprob"]
        for one in [first, *(first.get("top_logprobs") or [])]
        if isinstance(one, dict)
        and isinstance(one.get("token"), str)
        and isinstance(one.get("logprob"), int | float)
    }
    begins: list[float] = [
        math.exp(min(logprob, 0.0))
        for token, logprob in options.items()
        if token.strip() and label.startswith(token.strip())
    ]
    return min(sum(begins), 1.0)
