"""Commands in the process of the tests: a process of its own takes half a second only to import.

The same options, environment, standard streams and exit status. What is about the process itself (signals, terminals,
memory, umask) and what asks a question, which click's runner answers on standard output, needs `servers.run_cli`.
"""

import os
import subprocess
from collections.abc import Mapping

from click.testing import CliRunner
from tests.support import servers
from tests.support.servers import Server

from tunewarden.cli.commands import cli


def run_cli(
    *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a `tunewarden` command in an environment without any setting but these."""
    wanted = servers.environment({}) | dict(settings or {})
    unset = dict.fromkeys(os.environ.keys() - wanted.keys())
    # An error that no command shows in a line is an error here too.
    ran = CliRunner().invoke(
        cli, arguments, env=unset | wanted, prog_name="tunewarden", catch_exceptions=False
    )
    return subprocess.CompletedProcess(arguments, ran.exit_code, ran.stdout, ran.stderr)


def on(
    server: Server, *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command on a server's data directory."""
    return run_cli(*arguments, "--data", str(server.data), settings=settings)


def over_http(server: Server) -> dict[str, str]:
    """Return the environment that names a server by its address, as the SDK has it."""
    return {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": server.owner_key}
