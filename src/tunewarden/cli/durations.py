"""Durations on the command line: `90`, `90s`, `15m`, `24h`, `30d`."""

import re

import click

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


class Duration(click.ParamType[int]):
    """Whole seconds, or a number with a unit; converted to seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return it in seconds."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value))
        if match is None or int(match[1]) == 0:
            self.fail(f"'{value}' is no duration, such as 90s, 15m, 24h or 30d.", param, ctx)
        return int(match[1]) * SECONDS[match[2]]


class Days(click.ParamType[int]):
    """Whole days: `90`, `90d`, `4w`."""

    name = "days"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return their number."""
        match = re.fullmatch(r"([0-9]{1,6})([dw]?)", str(value))
        if match is None or int(match[1]) == 0:
            self.fail(f"'{value}' is no number of days, such as 90, 90d or 12w.", param, ctx)
        return int(match[1]) * (7 if match[2] == "w" else 1)


expires_option = click.option(
    "--expires", type=Duration(), help="For how long it is valid: 24h, 30d. [default: for ever]"
)
