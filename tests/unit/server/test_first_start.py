"""The demo is whole after a start that was killed while it was made."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from tunewarden.app import App, open_app
from tunewarden.config import Config
from tunewarden.registry import models
from tunewarden.registry.imports import Imports
from tunewarden.server import first_start

pytest.importorskip("tunewarden_demo", reason="the demo's weights")


def test_a_demo_whose_fine_tune_is_missing_gets_it_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app(Config(data=tmp_path / "data"), migrate=True)
    first_start.make_owner(app)
    with monkeypatch.context() as killed:
        killed.setattr(Imports, "bring_in", _killed)
        with pytest.raises(KeyboardInterrupt):
            _make(app)
    assert not models.were_made_on(app.database, first_start.DEMO_BASE)
    _make(app)
    assert models.newest(app.database) is not None
    _make(app)
    with app.database.read() as tx:
        assert tx.row("SELECT COUNT(*) FROM models") == (1,)


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _make(app: App) -> None:
    first_start.make_demo(app, Console(quiet=True), train=False)


def test_the_copy_of_the_demos_base_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o077)  # as the command sets it
    try:
        app = open_app(Config(data=tmp_path / "data"), migrate=True)
        first_start.make_owner(app)
        _make(app)
    finally:
        os.umask(before)
    base = app.config.data / first_start.DEMO_BASE
    assert [path for path in (base, *base.iterdir()) if path.stat().st_mode & 0o077] == []
