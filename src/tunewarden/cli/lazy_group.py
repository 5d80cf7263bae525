"""A click group with lazily imported commands: its `--help` imports none of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

# The release that removes every alias (docs/reference/stability.md).
ALIASES_END = "0.4"


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command's location, as "module:attribute", and its line in the group's help.

    `aliases` are older names, which work until ALIASES_END but are not listed.
    """

    place: str
    summary: str
    aliases: tuple[str, ...] = ()


class LazyGroup(click.Group):
    """A group of lazily imported commands.

    `check` is called with a command's name before its module is imported; it may raise click.ClickException.
    """

    def __init__(
        self,
        *arguments: Any,
        lazy: Mapping[str, Lazy],
        check: Callable[[str], None],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.lazy = lazy
        self._check = check

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the listed names."""
        return sorted(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command by name or alias; None if there is none."""
        for name, one in self.lazy.items():
            if cmd_name == name or cmd_name in one.aliases:
                self._check(name)
                module, _, attribute = one.place.partition(":")
                command = getattr(import_module(module), attribute)
                assert isinstance(command, click.Command), f"{one.place} is a command"
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is run; say on standard error that an alias is deprecated."""
        found = super().resolve_command(ctx, args)
        for name, one in self.lazy.items():
            if args[0] in one.aliases and not ctx.resilient_parsing:  # which completion asks for
                click.echo(
                    f"Warning: '{args[0]}' is deprecated and will be removed in {ALIASES_END}. Use '{name}'.",
                    err=True,
                )
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.lazy[name].summary) for name in self.list_commands(ctx)]
            )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the shell completions of a name."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        found = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name, help=self.lazy[name].summary) for name in found]
