"""Directories from strangers: bases read by their headers, adapters by two fixed names."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.adapters import GOOD_CONFIG, GOOD_WEIGHTS, Tensors, weights

from tunewarden.artifacts.adapters import base_shape, read_adapter_directory
from tunewarden.errors import Error, Kind


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 * 1024**3)


def _missing_shard(base: Path) -> None:
    index = {"weight_map": {"a.weight": "model-1.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "model.safetensors").unlink()


def _shard_elsewhere(base: Path) -> None:
    index = {"weight_map": {"a.weight": "../../model.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda base: (base / "config.json").unlink(), "config.json"),
        (lambda base: (base / "config.json").write_text("{"), "not valid JSON"),
        (lambda base: (base / "config.json").write_text('{"model_type": "gpt2"}'), "gpt2"),
        (lambda base: (base / "config.json").write_bytes(b" " * 2_000_000), "larger"),
        (lambda base: (base / "model.safetensors").rename(base / "pytorch_model.bin"), "pickle"),
        (lambda base: (base / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda base: (base / "model.safetensors").write_bytes(b"xx"), "too short"),
        (lambda base: (base / "model.safetensors").write_bytes(weights({})), "no linear layers"),
        (_missing_shard, "missing"),
        (_shard_elsewhere, "beside it"),
    ],
)
def test_a_directory_that_is_no_base_says_why(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    entries: Tensors = {"layers.0.q_proj.weight": ("F16", [2, 2], bytes(8))}
    (tmp_path / "model.safetensors").write_bytes(weights(entries))
    assert base_shape(tmp_path, "b").modules == {"layers.0.q_proj": (2, 2)}
    spoil(tmp_path)
    with pytest.raises(Error, match=message) as caught:
        base_shape(tmp_path, "b")
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "base")


def test_a_base_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Error, match="does not exist"):
        base_shape(tmp_path / "nowhere", "b")


def _adapter_directory(path: Path) -> Path:
    (path / "adapter_config.json").write_bytes(GOOD_CONFIG)
    (path / "adapter_model.safetensors").write_bytes(GOOD_WEIGHTS)
    return path


def test_only_the_two_files_of_an_adapter_directory_are_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "tokenizer.json")
    config_bytes, file = read_adapter_directory(_adapter_directory(tmp_path))
    with file:
        assert (config_bytes, file.read()) == (GOOD_CONFIG, GOOD_WEIGHTS)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        os.mkfifo,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to("/dev/zero"),
        _sparse,
    ],
    ids=["absent", "a pipe", "a directory", "a link", "a dead link", "a device", "3 GiB"],
)
def test_what_is_no_regular_small_file_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], object]
) -> None:
    _adapter_directory(tmp_path)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(Error) as caught:
        read_adapter_directory(tmp_path)
    assert caught.value.param == name.partition(".")[0]
    assert caught.value.code == "invalid_adapter"


def test_a_directory_with_a_pickle_only_is_told_what_to_do(tmp_path: Path) -> None:
    _adapter_directory(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(Error, match="pickle and is not read; save the adapter as safetensors"):
        read_adapter_directory(tmp_path)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Error, match="does not exist"):
        read_adapter_directory(tmp_path / "nowhere")
