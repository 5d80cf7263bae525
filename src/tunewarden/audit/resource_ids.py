"""Ids that clients send, for audit events: what has not the form of an id may be anything, such as a person's name."""

import re

from tunewarden.ids import Prefix

# Of objects, and of fine-tuned models and their checkpoints.
_FORM = re.compile(
    rf"(?:{'|'.join(sorted(prefix.value for prefix in Prefix))})[-_][A-Za-z0-9]{{1,64}}"
    r"|ft:[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{0,64}:[A-Za-z0-9]{8}(?::ckpt-step-[0-9]{1,9})?"
)


def recordable(text: str) -> str:
    """Return a client's id if it has the form of our ids, else an empty text."""
    return text if _FORM.fullmatch(text) else ""
