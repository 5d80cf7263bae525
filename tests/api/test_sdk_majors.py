"""Both majors of the SDK that are in the field."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import administration, servers
from tests.support.servers import LOCAL_BASE, Server

# `make setup` puts it there.
OLDER = Path(sys.prefix) / "openai-2"


@pytest.mark.parametrize("major", ["2", "3"])
def test_lists_retrieves_deletes_and_refuses(server: Server, major: str) -> None:
    environment = servers.environment({})
    if major == "2":
        if not OLDER.is_dir():
            pytest.skip(f"{OLDER} is missing: pip install --target {OLDER} 'openai>=2,<3'")
        environment["PYTHONPATH"] = str(OLDER)
    models = [server.make_model().id for _ in range(5)]
    arguments = [
        major,
        server.url,
        server.owner_key,
        server.make_key("reader"),
        LOCAL_BASE,
        *models,
    ]
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sdk_major.py")), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"openai {major}." in ran.stdout


@pytest.mark.parametrize("major", ["2", "3"])
def test_administers(server: Server, major: str) -> None:
    environment = servers.environment({})
    if major == "2":
        if not OLDER.is_dir():
            pytest.skip(f"{OLDER} is missing: pip install --target {OLDER} 'openai>=2,<3'")
        environment["PYTHONPATH"] = str(OLDER)
    key = administration.make_admin_key(server.app, f"major-{major}")
    program = Path(__file__).with_name("sdk_major_admin.py")
    ran = subprocess.run(
        [sys.executable, str(program), major, server.url, key],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[1:] == ["last_owner", "not_offered"]
