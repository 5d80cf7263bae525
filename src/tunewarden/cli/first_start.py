"""What a new data directory gets: an organization, its Owner key, and the demo if asked for."""

import json
import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tunewarden import config
from tunewarden.app import App, scratch_directory
from tunewarden.artifacts.adapters import base_shape, read_adapter_directory
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Role
from tunewarden.ids import Prefix, mint
from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind
from tunewarden.serving import scratch

ORGANIZATION = "my-org"
DEMO_BASE = "demo-base"
DEMO_SUFFIX = "harbour"


def make_owner(app: App) -> None:
    """Make the organization and an Owner key, written to `DIR/owner.key`, unless there are keys."""
    with app.database.write() as tx:
        if tx.row("SELECT 1 FROM api_keys LIMIT 1"):
            return
        _, text = keys.create(tx, organization=ORGANIZATION, role=Role.OWNER, name="owner")
        # Inside the transaction: a key that could not be written down is not made.
        descriptor = os.open(app.config.owner_key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)


def owner_key(app: App) -> str | None:
    """Return the first Owner key as it was written down, or None if somebody took it away."""
    try:
        return app.config.owner_key.read_text("utf-8").strip()
    except FileNotFoundError:
        return None


def add_local_base(app: App, name: str, path: Path) -> None:
    """Register a local Hugging Face directory. Raises Error(INVALID), Error(CONFLICT)."""
    shape = base_shape(path, name)
    with app.database.write() as tx:
        bases.add(
            tx,
            name=name,
            kind=BaseKind.LOCAL,
            location=str(path.resolve()),
            engine_model=name,
            modules=dict(shape.modules),
        )


def make_demo(app: App, console: Console) -> None:
    """Train the demo's base and adapter and register both, unless that was done before.

    It is made in memory: the base is then kept in the data directory, the adapter sealed (I16).
    """
    if bases.find(app.database, DEMO_BASE) is not None:
        return
    key = owner_key(app)
    if key is None:
        raise Error(Kind.UNAVAILABLE, "The demo is imported with owner.key, which is gone.")
    caller = keys.authenticate(app.database, key, mint(Prefix.REQUEST))
    made = scratch.new_directory(scratch_directory(app.config), "demo") / "demo"
    try:
        _train_demo(made, console)
        kept = app.config.data / DEMO_BASE
        shutil.rmtree(kept, ignore_errors=True)  # of a first start that was broken off
        shutil.copytree(made / "base", kept)
        add_local_base(app, DEMO_BASE, kept)
        config_text, weights = read_adapter_directory(made / "adapter")
        with weights:
            app.imports.bring_in(
                caller,
                base=DEMO_BASE,
                suffix=DEMO_SUFFIX,
                config=BytesIO(config_text),
                weights=weights,
            )
    finally:
        scratch.erase(made.parent)


def _train_demo(directory: Path, console: Console) -> None:
    command = [sys.executable, "-m", "tunewarden.demo", "--out", str(directory)]
    columns = (TextColumn("Making the demo: {task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            env=config.child_environment(),
            # A terminal's Ctrl-C is for this process alone, which then ends the other without a word.
            start_new_session=True,
        ) as training,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("starting")
        assert training.stdout is not None, "asked for above"
        try:
            for line in training.stdout:
                event = json.loads(line)
                progress.update(
                    task,
                    description=f"{event['stage']} (loss {event['loss']:.2f})",
                    completed=event["step"],
                    total=event["steps"],
                )
        except BaseException:
            training.kill()
            raise
    if training.returncode != 0:
        raise Error(
            Kind.UNAVAILABLE,
            "The demo could not be made. It needs the local engine: pip install 'tunewarden[local]'.",
        )
