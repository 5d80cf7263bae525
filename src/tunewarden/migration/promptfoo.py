"""A configuration for promptfoo that asks the new model what the old one was asked, and expects what it said. Pure.

It is JSON, which promptfoo reads too. Questions and answers stand in it unencrypted.
"""

from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]
# Of a string in a template of Nunjucks.
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def configuration(model: str, url: str, lines: Sequence[Object]) -> Object:
    """Return the configuration of a comparison's lines whose old answer is text."""
    return {
        "description": f"{model} beside what was recorded",
        "prompts": ["{{messages | dump}}"],
        "providers": [
            {
                "id": f"openai:chat:{model}",
                # The key is read from OPENAI_API_KEY.
                "config": {"apiBaseUrl": url, "temperature": 0},
            }
        ],
        "tests": [
            {
                "vars": {"messages": line["request"]["messages"]},
                "assert": [{"type": "equals", "value": _literal(said)}],
            }
            for line in lines
            if (said := text(line["there"]))
        ],
    }


def _literal(said: str) -> str:
    """Return a template that gives exactly this text.

    promptfoo renders an expected value, and takes one that begins with `file://` for a program to run.
    """
    escaped = said.translate({ord(one): other for one, other in ESCAPES.items()})
    return f'{{{{ "{escaped}" }}}}'


def text(answer: Object) -> str:
    """Return the text of an answer; empty if it has none."""
    choices = (answer.get("response") or {}).get("choices") or [{}]
    content = (choices[0].get("message") or {}).get("content")
    return content if isinstance(content, str) else ""
