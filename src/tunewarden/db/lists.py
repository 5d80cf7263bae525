"""Lists of values in a statement, `IN (…)`: names of parameters, in the dialect that SQLite and PostgreSQL share."""

from collections.abc import Iterator, Sequence

# So many values in one statement; and what shorter lists are filled up to, so that few statements are compiled.
AT_ONCE = 64
LENGTHS = (1, 8, AT_ONCE)


def parts(values: Sequence[int] | Sequence[str]) -> Iterator[tuple[str, dict[str, int | str]]]:
    """Yield the text inside the brackets, and the parameters that it names, for at most AT_ONCE values each."""
    for start in range(0, len(values), AT_ONCE):
        part = values[start : start + AT_ONCE]
        length = next(one for one in LENGTHS if one >= len(part))
        # A value that is there twice is found once.
        filled = [*part, *[part[0]] * (length - len(part))]
        named = {f"in{place}": value for place, value in enumerate(filled)}
        yield ", ".join(f":{name}" for name in named), named
