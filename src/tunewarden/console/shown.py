"""Figures and times as pages show them: filters of the templates. All times are UTC."""

import json
import shlex
from datetime import UTC, datetime
from urllib.parse import quote

from markupsafe import Markup

from tunewarden.identity.policy import Action, Caller, allows

UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def moment(seconds: float | None, otherwise: str = "not yet") -> str:
    """Return a time to the minute, as an element that programs can read too."""
    return otherwise if seconds is None else _time(seconds, "%Y-%m-%d %H:%M")


def exact(seconds: float | None, otherwise: str = "not yet") -> str:
    """Return a time to the millisecond."""
    if seconds is None:
        return otherwise
    milliseconds = f"{seconds % 1:.3f}"[1:] if seconds % 1 < 0.9995 else ".999"
    return _time(seconds, f"%Y-%m-%d %H:%M:%S{milliseconds}")


def _time(seconds: float, form: str) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        at.strftime("%Y-%m-%dT%H:%M:%SZ"), at.strftime(form)
    )


def duration(seconds: float) -> str:
    """Return a length of time in its largest unit, such as `3 days`; below a second in milliseconds."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for length, name in UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "0 seconds"


def size(count: int) -> str:
    """Return a number of bytes."""
    value = float(count)
    for unit in SIZES:
        if value < 1024 or unit == SIZES[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit is returned")


def number(count: int) -> str:
    """Return a number with its thousands apart."""
    return f"{count:,}"


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe=":@")


def quoted(text: str) -> str:
    """Return a text as a literal of Python."""
    return json.dumps(text)


def may(caller: Caller, action: Action | None) -> bool:
    """Return whether a caller may do something: what it may not is not offered, and is refused all the same."""
    return action is None or allows(caller, action)


FILTERS = {
    "moment": moment,
    "exact": exact,
    "duration": duration,
    "size": size,
    "number": number,
    "segment": segment,
    "shell": shlex.quote,
    "quoted": quoted,
    "may": may,
}
