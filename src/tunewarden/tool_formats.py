"""How models write calls of tools: one table. A base's format is found in its chat template, not in its name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Layout(StrEnum):
    """What stands behind the mark that begins a call."""

    OBJECT = "an object up to the end mark"
    OBJECTS = "objects up to the end of the text"
    LIST = "a list of objects up to the end of the text"
    NAMED = "a name, a mark and the arguments, up to the end of the text"


# A call whose rendering shows how a template writes calls.
PROBE_NAME = "probe_function"
PROBE_ARGUMENTS = {"probe_argument": "probe value"}
_NAME = rf'\{{\s*"name":\s*"{PROBE_NAME}",\s*'
_ARGUMENTS = r'(?P<arguments>\{\s*"probe_argument":\s*"probe value"\s*\})'


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One format. `begin` opens a call and `end`, if there is one, closes it.

    `is_bare`: an answer that is nothing but objects is calls, too. `separator` stands before the arguments if no key
    does. `opening`, `middle` and `closing` are what a model writes around a call's name and its arguments. `written`
    finds the probe in what a template rendered; `source` stands in the text of every such template.
    """

    name: str
    layout: Layout
    begin: str
    written: re.Pattern[str]
    source: tuple[str, ...]
    opening: str
    middle: str = '", "arguments": '
    closing: str = "}"
    end: str = ""
    separator: str = ""
    is_bare: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the marks, some of which are special tokens of some tokenizers."""
        return tuple(mark for mark in (self.begin, self.end, self.separator) if mark)


# Hermes and Qwen; others have another tag.
HERMES = ToolFormat(
    "hermes",
    Layout.OBJECT,
    "<tool_call>",
    re.compile(
        r"(?P<begin><(?P<tag>\w+)>)\s*"
        rf'{_NAME}"arguments":\s*{_ARGUMENTS}\s*\}}\s*(?P<end></(?P=tag)>)'
    ),
    ('"arguments": ', "</"),
    opening='<tool_call>\n{"name": "',
    closing="}\n</tool_call>",
    end="</tool_call>",
)
MISTRAL_LIST = ToolFormat(
    "mistral",
    Layout.LIST,
    "[TOOL_CALLS]",
    re.compile(rf'\[TOOL_CALLS\]\s*\[\s*{_NAME}"arguments":\s*{_ARGUMENTS}'),
    ("[TOOL_CALLS]",),
    opening='[TOOL_CALLS] [{"name": "',
    closing="}]",
)
MISTRAL_NAMED = ToolFormat(
    "mistral_named",
    Layout.NAMED,
    "[TOOL_CALLS]",
    re.compile(rf"\[TOOL_CALLS\]\s*{PROBE_NAME}(\[CALL_ID\]\w+)?\[ARGS\]\s*{_ARGUMENTS}"),
    ("[TOOL_CALLS]",),
    opening="[TOOL_CALLS]",
    middle="[ARGS]",
    closing="",
    separator="[ARGS]",
)
LLAMA = ToolFormat(
    "llama",
    Layout.OBJECTS,
    "<|python_tag|>",
    re.compile(rf'{_NAME}"parameters":\s*{_ARGUMENTS}\s*\}}'),
    ('"parameters": ', "ipython"),
    opening='{"name": "',
    middle='", "parameters": ',
    is_bare=True,
)
FORMATS = (HERMES, MISTRAL_LIST, MISTRAL_NAMED, LLAMA)


def rendered_format(text: str) -> ToolFormat | None:
    """Return the format in which the probe stands in a rendered chat; None if in none of them."""
    for one in FORMATS:
        found = one.written.search(text)
        if found:
            return one if one.layout is Layout.NAMED else _as_written(one, found)
    return None


def _as_written(one: ToolFormat, found: re.Match[str]) -> ToolFormat:
    """Return a format with the marks and the white space of one template."""
    opening, _, rest = found[0].partition(PROBE_NAME)
    middle, _, closing = rest.partition(found["arguments"])
    marks = found.groupdict()
    return replace(
        one,
        begin=marks.get("begin") or one.begin,
        end=marks.get("end") or one.end,
        opening=opening,
        middle=middle,
        closing=closing or one.closing,
    )


def may_write_calls(templates: Iterable[str]) -> bool:
    """Tell from the sources of a base's chat templates, without rendering them, whether one writes calls."""
    return any(
        "tool_calls" in template
        and any(all(part in template for part in one.source) for one in FORMATS)
        for template in templates
    )
