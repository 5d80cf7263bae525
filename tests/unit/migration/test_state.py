"""What a migration keeps of what it has done."""

import errno
import os
from pathlib import Path

import pytest

from tunewarden.errors import Error, Kind
from tunewarden.migration import state

URL = "https://api.openai.com/v1"


def test_what_is_written_is_read_by_the_next_command(tmp_path: Path) -> None:
    with state.opened(tmp_path / "state", URL) as first:
        assert first.read("downloads") is None
        first.write("downloads", {"files": {"a": 1}})
    # As a command leaves it that is killed while it writes.
    (tmp_path / "state" / "downloads.new").write_bytes(b'{"version": 1, "fi')
    with state.opened(tmp_path / "state", URL) as second:
        found = second.read("downloads")
        assert found is not None
        assert found["files"] == {"a": 1}
        second.write("downloads", {"files": {}})


def test_two_commands_do_not_use_one_state(tmp_path: Path) -> None:
    with (
        state.opened(tmp_path, URL),
        pytest.raises(Error, match="Another command") as raised,
        state.opened(tmp_path, URL),
    ):
        pass
    assert raised.value.kind is Kind.CONFLICT


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', b"\xff"])
def test_what_is_not_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    with state.opened(tmp_path, URL) as opened:
        (tmp_path / "inventory.json").write_bytes(content)
        with pytest.raises(Error, match="cannot be read, or is not of this version"):
            opened.read("inventory")


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Error, match="cannot be used"), state.opened(tmp_path / "file", URL):
        pass


def test_a_full_disk_is_said_with_the_file_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with state.opened(tmp_path, URL) as opened:
        path = opened.write("downloads", {"files": {}})
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(Error) as raised:
            opened.write("downloads", {"files": {"a": 1}})
        # No error of one file: nothing that comes next could be noted either.
        assert raised.value.kind is Kind.UNAVAILABLE
        assert raised.value.message == f"{path} cannot be written: No space left on device."
        assert not path.with_suffix(".new").exists()
        assert (opened.read("downloads") or {})["files"] == {}
