"""`tunewarden audit verify` over HTTP: an administrator checks the organization's own events, whoever changed rows."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cli import in_process
from tests.support import administration, lone_worker, servers
from tests.support.servers import Server

from tunewarden import audit
from tunewarden.audit import digests, retention
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.clock import SystemClock, to_micros
from tunewarden_receipts.audit_digest import events_root

DAY = 86_400_000_000


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Server]:
    """A worker with two digests of two organizations, and newer events of both."""
    with lone_worker.serving(tmp_path / "data") as server:
        for _ in range(2):
            for organization in ("mine", "others"):
                administration.make_user(server.app, "somebody", organization=organization)
            administration.make_digest(server.app)
        yield server


@pytest.fixture
def settings(audited: Server) -> dict[str, str]:
    key = administration.make_admin_key(audited.app, "mine")
    return {"TUNEWARDEN_URL": audited.url, "TUNEWARDEN_ADMIN_KEY": key}


def _verify(settings: dict[str, str], *options: str) -> tuple[int, dict[str, Any]]:
    done = in_process.run_cli("audit", "verify", "--json", *options, settings=settings)
    assert done.returncode in {ExitCode.DONE, ExitCode.FAILED}, done.stderr
    return done.returncode, json.loads(done.stdout)


def _organization(server: Server, name: str = "mine") -> str:
    row = server.app.database.peek("SELECT id FROM organizations WHERE name = :name", name=name)
    assert row is not None
    return str(row[0])


def _intrude(server: Server, *statements: str, **values: object) -> None:
    """Change rows as one who may do anything with the database."""
    connection = sqlite3.connect(server.data / "tunewarden.sqlite")
    with connection:
        for trigger in ("audit_events_never_change", "audit_events_stay"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        for statement in statements:
            assert connection.execute(statement, values).rowcount > 0, statement
    connection.close()


def _first_event(server: Server) -> str:
    row = server.app.database.peek(
        "SELECT id FROM audit_events WHERE organization_id = :id ORDER BY n",
        id=_organization(server),
    )
    assert row is not None
    return str(row[0])


def test_an_organizations_own_log_is_checked_without_the_servers_machine(
    audited: Server, settings: dict[str, str], tmp_path: Path
) -> None:
    key = tmp_path / "log.pem"
    key.write_bytes(audited.get("/.well-known/tunewarden-log-key", key=None).body)
    status, found = _verify(settings, "--log-key", str(key))
    own = audited.app.database.peek(
        "SELECT COUNT(*) FROM audit_events WHERE organization_id = :id", id=_organization(audited)
    )
    assert own is not None
    assert (status, found["problems"], found["digests"]) == (ExitCode.DONE, [], 2)
    assert found["events"] + found["undigested"] == own[0]
    assert found["undigested"] >= 1, "its admin key is new"
    told = in_process.run_cli("audit", "verify", settings=settings)
    assert (told.returncode, told.stdout) == (ExitCode.DONE, "")
    assert "2 digests and " in told.stderr
    assert "--log-key" in told.stderr, "the server's own key was used"


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("DELETE FROM audit_events WHERE id = :event", "an event is missing"),
        ("UPDATE audit_events SET type = 'x.y' WHERE id = :event", "an event was changed"),
        ("UPDATE audit_events SET details = '{' WHERE id = :event", "an event is missing"),
        ("UPDATE audit_events SET organization_id = :others WHERE id = :event", "missing"),
    ],
)
def test_an_event_that_was_tampered_with_is_named(
    audited: Server, settings: dict[str, str], sql: str, what: str
) -> None:
    victim = _first_event(audited)
    _intrude(audited, sql, event=victim, others=_organization(audited, "others"))
    status, found = _verify(settings)
    assert status == ExitCode.FAILED
    (problem,) = found["problems"]
    assert what in problem["what"]
    assert problem["event"] == victim


@pytest.mark.parametrize("way", ["http", "local"])
def test_an_event_is_not_taken_out_by_a_row_that_says_it_expired(
    audited: Server, settings: dict[str, str], way: str
) -> None:
    victim = _first_event(audited)
    _intrude(
        audited,
        "UPDATE audit_parts SET expired_at = 1 WHERE organization_id = :organization AND number = 1",
        "DELETE FROM audit_events WHERE id = :event",
        event=victim,
        organization=_organization(audited),
    )
    if way == "http":
        status, found = _verify(settings)
    else:
        done = in_process.run_cli("audit", "verify", "--json", "--data", str(audited.data))
        status, found = done.returncode, json.loads(done.stdout)
    assert status == ExitCode.FAILED
    [problem] = found["problems"]
    assert (problem["event"], problem["digest"]) == (victim, 1)
    assert "none says that it expired" in problem["what"]


def test_what_a_retention_period_deleted_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lone_worker.serving(tmp_path / "data") as server:
        app = server.app
        with monkeypatch.context() as past:
            past.setattr(app.database, "_clock", _Past())
            key = administration.make_admin_key(app, "mine")
            administration.make_user(app, "somebody", organization="mine")
            administration.make_digest(app)
        with app.database.write() as tx:
            retention.set_days(tx, _organization(server), 90, audit.SERVER)
        assert retention.apply(app.database, to_micros(app.clock.now())) > 0
        status, found = _verify({"TUNEWARDEN_URL": server.url, "TUNEWARDEN_ADMIN_KEY": key})
        assert (status, found["problems"]) == (ExitCode.DONE, [])
        assert found["expired"] > 0
        local = in_process.run_cli("audit", "verify", "--data", str(server.data))
        assert (local.returncode, local.stdout) == (ExitCode.DONE, "")


class _Past(SystemClock):
    """A clock that is a hundred days slow."""

    def now(self) -> datetime:
        return super().now() - timedelta(days=100)


def _without_an_event(server: Server) -> None:
    """Take an event out of the rows of its digest as well: hashes, count and root fit again."""
    organization, victim = _organization(server), _first_event(server)
    with server.app.database.read() as tx:
        (part,) = digests.parts_of(tx, organization, 0, 1)
    left = [one for one in part.entries() if one.id != victim]
    _intrude(
        server,
        "DELETE FROM audit_events WHERE id = :event",
        "UPDATE audit_parts SET entries = :entries, events = :events, root = :root"
        " WHERE organization_id = :organization AND number = 1",
        event=victim,
        entries=digests.pack(left),
        events=len(left),
        root=events_root([one.hash for one in left]),
        organization=organization,
    )


def _without_a_digest(server: Server) -> None:
    organization = _organization(server)
    _intrude(
        server,
        "DELETE FROM audit_parts WHERE organization_id = :id AND number = 1",
        "UPDATE audit_parts SET number = 1, previous = NULL WHERE organization_id = :id",
        id=organization,
    )


@pytest.mark.parametrize("forge", [_without_an_event, _without_a_digest])
def test_rows_that_fit_each_other_do_not_fit_the_log(
    audited: Server, settings: dict[str, str], forge: Callable[[Server], None]
) -> None:
    forge(audited)
    status, found = _verify(settings)
    assert status == ExitCode.FAILED
    assert "not one that the log commits to" in found["problems"][0]["what"]


def test_a_key_of_another_log_proves_nothing(
    audited: Server, settings: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    servers.prepare_local_base(other)
    pem = servers.open_data(other).open_log()[1].public_pem()
    key = tmp_path / "log.pem"
    key.write_bytes(pem)
    status, found = _verify(settings, "--log-key", str(key))
    assert status == ExitCode.FAILED
    assert "its proof is not valid" in found["problems"][0]["what"]
    key.write_text("no key")
    wrong = in_process.run_cli("audit", "verify", "--log-key", str(key), settings=settings)
    assert wrong.returncode == ExitCode.USAGE


def test_a_back_dated_event_is_flagged_on_both_ways(
    audited: Server, settings: dict[str, str]
) -> None:
    app = audited.app
    with app.database.write() as tx:
        tx.run(
            "INSERT INTO audit_events (id, type, effective_at, organization_id, resource_id, details)"
            " VALUES ('audit_log-forged', 'user.added', :at, :organization, 'user_x', '{}')",
            at=to_micros(app.clock.now()) - DAY,
            organization=_organization(audited),
        )
    for covered in (False, True):
        status, found = _verify(settings)
        assert status == ExitCode.FAILED
        assert [one["event"] for one in found["problems"]] == ["audit_log-forged"], covered
        local = in_process.run_cli("audit", "verify", "--json", "--data", str(audited.data))
        (problem,) = json.loads(local.stdout)["problems"]
        assert (problem["event"], problem["digest"]) == ("audit_log-forged", 3)
        assert "back-dated" in problem["what"]
        assert problem["organization"] == _organization(audited)
        administration.make_digest(app)


def test_other_organizations_and_no_digest_are_not_found(
    audited: Server, settings: dict[str, str]
) -> None:
    key = settings["TUNEWARDEN_ADMIN_KEY"]
    missing = administration.ask(audited, "GET", "/audit_logs/digests/3", key)
    assert (missing.status, missing.error["param"]) == (404, "number")
    shown = administration.ask(audited, "GET", "/audit_logs/digests/1", key)
    lines = administration.ask(audited, "GET", "/audit_logs/digests/1/events", key)
    own = _organization(audited)
    assert {json.loads(line)["organization_id"] for line in lines.body.splitlines()} == {own}
    assert _organization(audited, "others") not in shown.body.decode() + lines.body.decode()
