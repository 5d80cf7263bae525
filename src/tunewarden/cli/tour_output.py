"""What a tour shows, as it goes, and the same as an object."""

from typing import Any

import click

from tunewarden.cli.output import plain


class Shown:
    """Prints the steps of a tour: what each is about, what it calls, and the results. Quiet if asked for JSON."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self.steps: list[dict[str, Any]] = []

    def say(self, *lines: str) -> None:
        """Print lines that belong to no step."""
        self._print(*lines)

    def step(self, name: str, title: str) -> None:
        """Begin a step."""
        self.steps.append({"name": name, "calls": [], "found": []})
        self._print("", f"{len(self.steps)}. {title}")

    def call(self, line: str) -> None:
        """Show a call that is made."""
        self.steps[-1]["calls"].append(line)
        self._print(f"   > {line}")

    def found(self, *lines: str) -> None:
        """Show the results of the calls."""
        self.steps[-1]["found"] += lines
        self._print(*(f"   {plain(line)}" for line in lines))

    def _print(self, *lines: str) -> None:
        if not self._is_quiet:
            click.echo("\n".join(lines))
