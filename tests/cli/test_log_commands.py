"""`tunewarden log rotate-key` where there is nothing to rotate: it refuses, and makes nothing."""

from pathlib import Path

import pytest
from tests.cli import in_process
from tests.support import servers

from tunewarden.cli.exit_codes import ExitCode


@pytest.mark.parametrize(
    "command",
    [
        ("log", "rotate-key", "--yes"),
        ("log", "rotate-key", "--dry-run"),
        ("keyring", "adopt", "--yes"),
        ("keyring", "adopt", "--dry-run"),
        ("doctor", "--sweep"),
    ],
)
def test_a_directory_that_is_none_is_refused_and_not_made(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    ran = in_process.run_cli(*command, "--data", str(tmp_path / "typo"))
    assert ran.returncode != ExitCode.DONE
    assert "is not a data directory" in ran.stdout + ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_signed_nothing_is_not_rotated(tmp_path: Path) -> None:
    servers.prepare_local_base(tmp_path)
    for option in ("--yes", "--dry-run"):
        ran = in_process.run_cli("log", "rotate-key", option, "--data", str(tmp_path))
        assert (ran.returncode, "no deletion log yet" in ran.stderr) == (ExitCode.CONFLICT, True)
        assert not (tmp_path / "log").exists()
        assert not (tmp_path / "log.key").exists()
