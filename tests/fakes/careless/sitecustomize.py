"""On the PYTHONPATH of a control: every worker is careless, so that the tests have something to find."""

from typing import Any

from tunewarden.serving.admission import Admissions
from tunewarden.serving.kernel_locks import KernelLockFence


def _yes(*_: Any) -> bool:
    return True


def _nothing(*_: Any) -> None:
    pass


for kind, name, careless in (
    (KernelLockFence, "begin", _yes),
    (KernelLockFence, "end", _nothing),
    (Admissions, "may_go_on", _yes),
    (Admissions, "_watch", _nothing),
):
    setattr(kind, name, careless)
