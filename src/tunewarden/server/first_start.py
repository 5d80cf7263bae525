"""Sets up a new data directory: an organization, its Owner key, and the demo if requested."""

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
from tunewarden.engines import scratch
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller, Role
from tunewarden.ids import Prefix, mint
from tunewarden.registry import bases, models
from tunewarden.registry.bases import BaseKind

ORGANIZATION = "my-org"
DEMO_BASE = "demo-base"
DEMO_SUFFIX = "harbour"
NO_WEIGHTS = (
    "The demo's weights are not installed: pip install tunewarden-demo; for uvx, --with tunewarden-demo. "
    "Or train them here, which takes minutes: tunewarden serve --demo-train"
)


def make_owner(app: App) -> None:
    """Create the organization and an Owner key, written to `DIR/owner.key`, unless keys exist."""
    with app.database.read() as tx:
        if keys.exist(tx):
            return  # without a write: a server must start on a full disk too
    with app.database.write() as tx:
        if keys.exist(tx):
            return
        _, text = keys.create(tx, organization=ORGANIZATION, role=Role.OWNER, name="owner")
        # Inside the transaction: if the file cannot be written, the key is not created.
        descriptor = os.open(app.config.owner_key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)


def owner_key(app: App) -> str | None:
    """Return the Owner key in `DIR/owner.key`, or None if the file was removed."""
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


def make_demo(app: App, console: Console, *, train: bool) -> None:
    """Import the packaged demo, or one trained here, unless it exists already.

    The base is copied into the data directory: a later release of the weights must not replace the base of
    fine-tunes of this one. The adapter is encrypted like every import (I16).
    """
    has_base = bases.find(app.database, DEMO_BASE) is not None
    # A start that was killed in between left a base alone; a fine-tune that was deleted does not come back.
    if has_base and models.were_made_on(app.database, DEMO_BASE):
        return
    key = owner_key(app)
    if key is None:
        raise Error(Kind.UNAVAILABLE, "Importing the demo needs owner.key, which was removed.")
    caller = keys.authenticate(app.database, key, mint(Prefix.REQUEST))
    if not train:
        _import_demo(app, caller, *packaged_demo())
        return
    made = scratch.new_directory(scratch_directory(app.config), "demo") / "demo"
    try:
        _train_demo(made, console)
        _import_demo(app, caller, made / "base", made / "adapter")
    finally:
        scratch.erase(made.parent)


def packaged_demo() -> tuple[Path, Path]:
    """Return the directories of the installed base and adapter. Raises Error(UNAVAILABLE)."""
    try:
        import tunewarden_demo  # noqa: PLC0415  a distribution that may be absent
    except ModuleNotFoundError:
        raise Error(Kind.UNAVAILABLE, NO_WEIGHTS) from None
    return tunewarden_demo.BASE, tunewarden_demo.ADAPTER


def _import_demo(app: App, caller: Caller, base: Path, adapter: Path) -> None:
    if bases.find(app.database, DEMO_BASE) is None:
        kept = app.config.data / DEMO_BASE
        shutil.rmtree(kept, ignore_errors=True)  # of an interrupted first start
        kept.mkdir()
        for file in base.iterdir():
            shutil.copyfile(
                file, kept / file.name
            )  # Without its mode: the package may be read-only.
        add_local_base(app, DEMO_BASE, kept)
    config_text, weights = read_adapter_directory(adapter)
    with weights:
        app.imports.bring_in(
            caller,
            base=DEMO_BASE,
            suffix=DEMO_SUFFIX,
            config=BytesIO(config_text),
            weights=weights,
            is_public=True,  # Allowed even if memory may be swapped: the weights are public.
        )


def _train_demo(directory: Path, console: Console) -> None:
    command = [sys.executable, "-m", "tunewarden.demo", "--out", str(directory)]
    columns = (
        TextColumn("Training the demo: {task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with (
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            env=config.child_environment(),
            # Keep a terminal's Ctrl-C from the child: this process ends it quietly.
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
            "The demo could not be trained. Is the local engine installed completely? pip install 'tunewarden[local]'",
        )
