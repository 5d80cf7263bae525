"""On the PYTHONPATH of the guard's control: each admission costs some 60 µs of Python more, which must be seen."""

from typing import Any

from tunewarden.serving.admission import Admissions

ROUNDS = 1200
_admit = Admissions.admit


def _slowly(*given: Any) -> Any:
    total = 0
    for number in range(ROUNDS):
        total += number
    return _admit(*given)


setattr(Admissions, "admit", _slowly)  # noqa: B010  as a type, it would not fit
