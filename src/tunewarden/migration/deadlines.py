"""Shutdown dates of OpenAI's fine-tuned models, by the family of their base. Pure.

As OpenAI had announced it in November 2026 (https://developers.openai.com/api/docs/deprecations): fine-tuned models
stop with their base. A family that is not here has no announced date that we know of.
"""

from datetime import date

LAST_NEW_JOB = date(2027, 1, 6)
AZURE_MARK = ".ft-"
# Prefix of a base's name -> the day on which its fine-tuned models stop answering.
SHUTDOWNS = {
    "gpt-4o": date(2027, 1, 14),
    "gpt-4.1": date(2027, 1, 14),
}


def shutdown_of(base: str) -> date | None:
    """Return the day on which fine-tuned models of a base stop answering; None if unknown."""
    for family, day in SHUTDOWNS.items():
        if base == family or base.startswith(f"{family}-"):
            return day
    return None


def base_of(model: str) -> str:
    """Return the base in a model's id: `ft:BASE:…`, `BASE:ft-…` (until 2023), `BASE.ft-…` (Azure); else the id."""
    pieces = model.split(":")
    if pieces[0] == "ft" and len(pieces) > 1:
        return pieces[1]
    return pieces[0].partition(AZURE_MARK)[0]


def is_fine_tuned(model: str) -> bool:
    """Return whether an id is a fine-tuned model's."""
    return model.startswith("ft:") or ":ft-" in model or AZURE_MARK in model
