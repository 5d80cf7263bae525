"""On the PYTHONPATH of a control: no room is set aside for deletions on a full disk."""

from typing import Any

from tunewarden.deletion.reserve import Reserve
from tunewarden.space import Ballast


def _nothing(*_: Any) -> None:
    pass


def _none(*_: Any) -> int:
    return 0


for kind, name, careless in (
    (Ballast, "restore", _nothing),
    (Ballast, "missing_bytes", _none),
    (Reserve, "restore", _nothing),
):
    setattr(kind, name, careless)
