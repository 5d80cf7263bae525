"""The inventory of places names every place there is."""

import re
from importlib import resources
from pathlib import Path

from tests.support import fine_tuning_rows, servers

from tunewarden import app as composition
from tunewarden.deletion import inventory
from tunewarden.deletion.inventory import TABLES
from tunewarden.deletion.requests import Attempt, request_deletion
from tunewarden.registry.artifacts import ArtifactKind


def test_every_table_is_in_the_inventory() -> None:
    sql = "".join(
        entry.read_text("utf-8")
        for entry in (resources.files("tunewarden.db") / "migrations").iterdir()
        if entry.name.endswith(".sql")
    )
    tables = set(re.findall(r"CREATE TABLE (\w+)", sql)) | {"migrations"}
    assert {place.name for place in TABLES} == tables


def test_a_clean_installation_has_no_remnants_and_planted_ones_are_found(tmp_path: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    key = (data / "owner.key").read_text().strip()
    servers.import_adapter(app, key)
    places = composition.inventory(app)
    assert list(places.remnants(is_running=False)) == []
    app.blobs.put("m_orphan/adapter_model.safetensors.age", [b"sealed"])
    app.keyring.create()
    (data / "stray").write_text("?")
    found = list(places.remnants(is_running=False))
    assert [remnant.place for remnant in found] == ["blobs", "keyring", "data"]
    assert places.sweep() == 2
    assert [remnant.place for remnant in places.remnants(is_running=False)] == ["data"]


def test_what_is_unfinished_is_not_an_orphan(tmp_path: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    key = (data / "owner.key").read_text().strip()
    model = servers.import_adapter(app, key)
    caller = fine_tuning_rows.caller_of(app, key)
    request_deletion(app.database, caller, ArtifactKind.MODEL, model.id, Attempt(), log_size=0)
    assert list(composition.inventory(app).remnants(is_running=False)) == []


def test_every_place_says_how_absence_is_checked() -> None:
    places = (*inventory.TABLES, *inventory.FILES, *inventory.ELSEWHERE)
    assert all(place.checked for place in places)
