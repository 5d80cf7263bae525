"""Plain weights go to memory, or to a disk only where an operator accepted that (I16)."""

import os
from pathlib import Path

import pytest
from tests.support import servers

from tunewarden import mounts
from tunewarden.app import open_app, scratch_directory
from tunewarden.config import Config
from tunewarden.engines import scratch
from tunewarden.engines.embedded_control import EngineVerbs
from tunewarden.errors import Error, Kind

MEMORY = Path("/dev/shm")


def disk(tmp_path: Path) -> Path:
    if scratch._file_system_of(tmp_path) in mounts.IN_MEMORY:
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
        with pytest.raises(Error, match="accessible to other users"):
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


def test_what_another_user_made_in_its_place_does_not_stop_the_start(tmp_path: Path) -> None:
    """Anybody may make a directory in /dev/shm, and the usual name can be foreseen."""
    config = Config(data=tmp_path / "data", scratch=MEMORY)
    config.run.mkdir(parents=True)
    theirs = scratch.location(config.scratch, config.data)
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 65_534, 65_534)
    directory = scratch_directory(config)
    try:
        assert directory != theirs
        assert (directory.stat().st_uid, directory.stat().st_mode & 0o777) == (os.getuid(), 0o700)
        # Every process of the server finds the same.
        assert scratch_directory(config) == directory
        control = open_app(config, migrate=True).engine
        assert isinstance(control, EngineVerbs)
        assert control._scratch == directory
    finally:
        theirs.rmdir()
        directory.rmdir()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    config = Config(data=tmp_path / "data", scratch=MEMORY)
    config.run.mkdir(parents=True)
    link = scratch.location(config.scratch, config.data)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "elsewhere")
    directory = scratch_directory(config)
    try:
        assert not directory.is_symlink()
        assert directory != link
    finally:
        link.unlink()
        directory.rmdir()
