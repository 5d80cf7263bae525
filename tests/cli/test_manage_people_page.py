"""docs/how-to/manage-people.md: its commands run, one after the other, as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support import administration, servers
from tests.support.servers import Server

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "manage-people.md"


def test_the_commands_of_the_page_run(server: Server, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 8
    program = tmp_path / "tunewarden"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tunewarden "$@"\n')
    program.chmod(0o755)
    environment = servers.environment({}) | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "TUNEWARDEN_URL": server.url,
        "TUNEWARDEN_ADMIN_KEY": administration.make_admin_key(server.app, "of-the-page"),
    }
    ran = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "\n".join(blocks)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "sk-tw-" in ran.stdout
    assert "bob@example.com\tBob\tviewer" in ran.stdout
    left = server.app.database.peek(
        "SELECT COUNT(*) FROM users u JOIN organizations o ON o.id = u.organization_id"
        " WHERE o.name = 'of-the-page' AND u.email = 'bob@example.com'"
    )
    assert left == (0,)
