"""`tunewarden serve`."""

from typing import Any

import click

from tunewarden import config
from tunewarden.cli.options import refusing, setting_options
from tunewarden.server.fork_server import ForkServer


@click.command()
@setting_options
@click.option("--demo", is_flag=True, help="Add a small base model and a fine-tune of it.")
@click.option(
    "--demo-train", is_flag=True, help="Like --demo, but train both here, which takes minutes."
)
@refusing
def serve(*, demo: bool, demo_train: bool, **flags: Any) -> None:
    """Start the server. The first start creates an organization and an Owner key."""
    settings = config.load(**flags)
    with ForkServer() as fork_server:
        from tunewarden.cli import serve as serving  # noqa: PLC0415  while the fork server imports, too

        wanted = serving.Demo.PACKAGED if demo else serving.Demo.NONE
        sources = config.sources(**flags)
        chosen = serving.Demo.TRAINED if demo_train else wanted
        serving.run(settings, sources, fork_server, demo=chosen)
