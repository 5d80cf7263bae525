"""The demo's weights: made by the recipe that stands here, whole, small, and nothing beside them."""

import json
import shutil
import struct
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from tests.support.demo_models import PACKAGE, ROOT

from tunewarden.demo import recipe, weights
from tunewarden.demo.training import Progress

BYTES_MAX = 6_000_000
REMAKE = "make demo-weights, and commit what it writes"
DISTRIBUTION = ROOT / "packages" / "demo"


def test_the_weights_are_of_this_recipe() -> None:
    assert weights.read_record(PACKAGE).recipe == recipe.digest(), REMAKE


def test_the_weights_are_the_recorded_ones() -> None:
    assert weights.digests(PACKAGE) == weights.read_record(PACKAGE).files, REMAKE


def test_the_recipe_is_every_file_that_training_reads() -> None:
    directory = ROOT / "src" / "tunewarden" / "demo"
    rest = {"__init__.py", "__main__.py", "weights.py"}
    files = {path.name for path in directory.iterdir() if path.is_file()}
    assert files - rest == set(recipe.PARTS)


def test_a_changed_recipe_or_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "package"))
    (copy / "adapter" / "adapter_config.json").write_text("{}")
    assert weights.digests(copy) != weights.read_record(copy).files
    monkeypatch.setattr(recipe, "PARTS", recipe.PARTS[1:])
    assert recipe.digest() != weights.read_record(copy).recipe


def test_weights_are_made_only_if_the_recipe_changed(tmp_path: Path) -> None:
    def make(directory: Path, report: object) -> None:
        made.append(directory)
        for part in weights.PARTS:
            (directory / part).mkdir()
            (directory / part / "model").write_text(part)

    def report(progress: Progress) -> None:
        raise AssertionError(progress)

    made: list[Path] = []
    package = tmp_path / "package"
    package.mkdir()
    assert weights.make_weights(package, report, make)
    assert not weights.make_weights(package, report, make)
    assert len(made) == 1
    assert weights.read_record(package).files == weights.digests(package)
    assert set(weights.digests(package)) == {"base/model", "adapter/model"}


def test_every_tensor_is_bfloat16() -> None:
    for path in ("base/model.safetensors", "adapter/adapter_model.safetensors"):
        data = (PACKAGE / path).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        assert {tensor["dtype"] for name, tensor in header.items() if name[:2] != "__"} == {"BF16"}


def test_the_wheel_holds_the_weights_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=DISTRIBUTION,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size <= BYTES_MAX
    version = tomllib.loads((DISTRIBUTION / "pyproject.toml").read_text())["project"]["version"]
    info = f"tunewarden_demo-{version}.dist-info"
    files = ["__init__.py", "py.typed", "weights.json", *weights.read_record(PACKAGE).files]
    with zipfile.ZipFile(wheel) as archive:
        assert sum(entry.file_size for entry in archive.infolist()) <= BYTES_MAX
        assert set(archive.namelist()) == {
            *(f"tunewarden_demo/{file}" for file in files),
            *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")),
        }
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
