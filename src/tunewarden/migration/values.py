"""Values of a source's JSON, which may be anything: what is not of its kind is None. Pure."""

from datetime import UTC, datetime

# The end of the year 9999, the last that a date can have.
SECONDS_MAX = 253_402_300_799


def text(value: object) -> str | None:
    """Return a text that can be sent and stored, which half a surrogate pair cannot."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def count(value: object) -> int | None:
    """Return a whole number that is not negative."""
    return value if type(value) is int and value >= 0 else None


def seconds(value: object) -> int | float | None:
    """Return a time after 1970 that a date can have."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= SECONDS_MAX else None


def day(time: float) -> str:
    """Return a time's day, in UTC."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}"
