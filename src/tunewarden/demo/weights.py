"""The committed weights, `packages/demo`, and the record of the recipe that produced them."""

import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import msgspec
import torch

from tunewarden.demo import recipe
from tunewarden.demo.training import Report

RECORD = "weights.json"
PARTS = ("base", "adapter")


class Record(msgspec.Struct, frozen=True):
    """The digest of the recipe, that of each file by its path in the package, and the versions of libraries."""

    recipe: str
    files: dict[str, str]
    made_with: dict[str, str]


def make_weights(
    package: Path, report: Report, make: Callable[..., None] = recipe.make_demo
) -> bool:
    """Train and write `package`/base, /adapter and /weights.json; return False if the recipe has not changed.

    On one thread, so that sums have one order and the same versions give the same bytes.
    """
    if (package / RECORD).exists() and read_record(package).recipe == recipe.digest():
        return False
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=package.parent) as temporary:
        made = Path(temporary)
        make(made, report)
        for part in PARTS:
            shutil.rmtree(package / part, ignore_errors=True)
            shutil.move(made / part, package / part)
    record = Record(recipe.digest(), digests(package), _made_with())
    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    (package / RECORD).write_bytes(text + b"\n")
    return True


def read_record(package: Path) -> Record:
    """Return the record that was written with the weights."""
    return msgspec.json.decode((package / RECORD).read_bytes(), type=Record)


def digests(package: Path) -> dict[str, str]:
    """Return the present digest of every file of the weights, by its path in the package."""
    files = [path for part in PARTS for path in sorted((package / part).rglob("*"))]
    return {path.relative_to(package).as_posix(): recipe.sha256_of(path) for path in files}


def _made_with() -> dict[str, str]:
    libraries = {name: version(name) for name in ("peft", "tokenizers", "torch", "transformers")}
    return {"machine": platform.machine(), "python": platform.python_version(), **libraries}
