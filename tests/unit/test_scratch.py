"""Plain weights go to memory, or to a disk only where an operator accepted that (I16)."""

from pathlib import Path

import pytest
from tests import servers

from tunewarden.app import open_app, scratch_directory
from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.serving import scratch

MEMORY = Path("/dev/shm")


def disk(tmp_path: Path) -> Path:
    if scratch._file_system_of(tmp_path) in scratch.MEMORY_FILE_SYSTEMS:
        pytest.skip("the temporary directory is in memory on this machine")
    return tmp_path


def test_a_disk_is_refused_with_a_message_that_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(Error) as refused:
        scratch_directory(Config(data=tmp_path / "data", scratch=disk(tmp_path)))
    assert refused.value.kind is Kind.UNAVAILABLE
    assert "TUNEWARDEN_SCRATCH_MAY_BE_A_DISK" in refused.value.message


def test_an_accepted_disk_works(tmp_path: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    config = Config(data=data, scratch=disk(tmp_path), scratch_may_be_a_disk=True)
    app = open_app(config)
    model = servers.import_adapter(app, (data / "owner.key").read_text().strip())
    directory = scratch.new_directory(scratch_directory(config), model.internal_id)
    app.imports.unseal(model, directory)
    assert sorted(path.name for path in directory.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    scratch.erase(directory)
    assert not directory.exists()


def test_a_directory_that_others_can_read_is_refused(tmp_path: Path) -> None:
    config = Config(data=tmp_path / "data", scratch=MEMORY)
    directory = scratch_directory(config)
    try:
        assert directory.stat().st_mode & 0o077 == 0
        directory.chmod(0o755)
        with pytest.raises(Error, match="not ours alone"):
            scratch_directory(config)
    finally:
        directory.rmdir()


def test_unsealing_never_goes_to_a_disk_by_itself(tmp_path: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    model = servers.import_adapter(app, (data / "owner.key").read_text().strip())
    with pytest.raises(ValueError, match="tmpfs only"):
        app.imports.unseal(model, disk(tmp_path))
