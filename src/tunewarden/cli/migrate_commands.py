"""Commands that move models here from another server. Only `delete-source` changes anything there."""

import click

from tunewarden.cli.migrate_compare_command import compare_command
from tunewarden.cli.migrate_delete_source_command import delete_source_command
from tunewarden.cli.migrate_download_command import download_command
from tunewarden.cli.migrate_inventory_command import inventory_command
from tunewarden.cli.migrate_record_command import record_command
from tunewarden.cli.migrate_retrain_command import retrain_command
from tunewarden.cli.migrate_switch_command import rollback_command, switch_command


@click.group()
def migrate() -> None:
    """Moving models here from another server."""


@migrate.group("openai")
def openai() -> None:
    """From OpenAI, Azure, or another server with OpenAI's API. Only delete-source changes anything there."""


for command in (
    inventory_command,
    download_command,
    record_command,
    retrain_command,
    compare_command,
    switch_command,
    rollback_command,
    delete_source_command,
):
    openai.add_command(command)
