"""`python -m tunewarden`, and the `tunewarden` command."""

from tunewarden.cli.commands import cli


def main() -> None:
    """Run the command line."""
    cli(prog_name="tunewarden")


if __name__ == "__main__":
    main()
