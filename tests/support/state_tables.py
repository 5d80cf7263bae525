"""The tables of states and events at the top of a module, read as they stand there, to be held against its code."""

import re
from collections.abc import Iterator
from enum import Enum
from types import ModuleType

# (state, event, next state): the states by their names, the event as the table words it.
Transition = tuple[str, str, str]
_TARGETS = re.compile(r"->\s*([A-Z_]+(?:,\s*[A-Z_]+)*)")


def transitions(module: ModuleType, states: type[Enum]) -> set[Transition]:
    """Return what the tables of these states allow: one column a state, one row an event.

    A cell names the next states after an arrow, or says `stays`. A line that is indented goes on with the event above.
    """
    lines = (module.__doc__ or "").splitlines()
    known = {state.name for state in states}
    heads = [i for i, line in enumerate(lines) if _is_head(line, known)]
    return {
        (state, event, target)
        for head in heads
        for event, state, cell in _cells(lines[head], lines[head + 1 :])
        for target in _targets(state, cell)
    }


def _is_head(line: str, states: set[str]) -> bool:
    label, *names = line.split() or [""]
    return label == "event" and bool(names) and states.issuperset(names)


def _cells(head: str, below: list[str]) -> Iterator[tuple[str, str, str]]:
    names = head.split()[1:]
    starts = [head.index("event"), *(head.index(f" {name}") + 1 for name in names)]
    rows: list[list[str]] = []
    for line in below:
        if not line.strip():
            break
        cells = [
            line[start:end].rstrip() for start, end in zip(starts, [*starts[1:], None], strict=True)
        ]
        if cells[0] and not cells[0].startswith(" "):
            rows.append(cells)
        else:
            rows[-1] = [
                f"{above} {cell.strip()}" for above, cell in zip(rows[-1], cells, strict=True)
            ]
    for event, *row in rows:
        for name, cell in zip(names, row, strict=True):
            yield event.strip(), name, cell


def _targets(state: str, cell: str) -> list[str]:
    named = [name for found in _TARGETS.findall(cell) for name in re.split(r",\s*", found)]
    return named + [state] * ("stays" in cell)
