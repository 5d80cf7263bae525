"""`python -m tunewarden`, and the `tunewarden` command."""

import os
import platform

from tunewarden.cli.commands import cli

PRIVATE = 0o077


def main() -> None:
    """Run the command line with umask 077 and without core dumps (I16)."""
    os.umask(PRIVATE)
    if platform.system() == "Linux":  # elsewhere the command line says that it cannot serve
        from tunewarden import processes  # noqa: PLC0415  it needs Linux

        processes.keep_secrets_in_memory()
    cli(prog_name="tunewarden")


if __name__ == "__main__":
    main()
