"""Commands about a server's settings, as read on this machine."""

from pathlib import Path
from typing import Any

import click

from tunewarden import config
from tunewarden.cli import output
from tunewarden.cli.options import json_option, refusing, setting_options
from tunewarden.config import SETTINGS, SETTINGS_FILE
from tunewarden.settings import Setting, Source


@click.group("config")
def configuration() -> None:
    """Settings."""


@configuration.command("show")
@setting_options
@json_option
@refusing
def show(*, as_json: bool, **flags: Any) -> None:
    """Show each setting, its value, and its source. No setting is a secret."""
    values, sources = config.load(**flags), config.sources(**flags)
    found = [
        (setting, getattr(values, name), _place(setting, sources[name]))
        for name, setting in SETTINGS.items()
    ]
    if as_json:
        output.show_json(output.listing(_as_object(*one) for one in found))
    else:
        rows = [(setting.name, setting.shown(value), place) for setting, value, place in found]
        output.show_table(("setting", "value", "from"), rows)


def _as_object(setting: Setting, value: object, place: str) -> dict[str, object]:
    shown = setting.shown(value) if isinstance(value, Path) else value
    return {"object": "setting", "id": setting.name, "value": shown, "from": place}


def _place(setting: Setting, source: Source) -> str:
    named = {
        Source.FILE: SETTINGS_FILE,
        Source.ENVIRONMENT: setting.variable,
        Source.FLAG: setting.flag,
    }
    return f"{source} {named[source]}" if source in named else str(source)
