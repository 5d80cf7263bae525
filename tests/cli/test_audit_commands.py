"""`tunewarden audit`: list, export, retention, verify."""

import json
import sqlite3
from collections.abc import Iterator

import pytest
from tests.cli import in_process
from tests.support import administration
from tests.support.servers import Server, WithoutTorch, serving, wait_until

from tunewarden.audit import digests


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("audited") / "data"
    with serving(data, local_base=True, kind=WithoutTorch) as server:
        # Events of another day, which the runner digests.
        with server.app.database.write() as tx:
            tx.run("DROP TRIGGER audit_events_never_change")
            tx.run("UPDATE audit_events SET effective_at = effective_at - 86400000000")
        yield server


def test_events_are_listed_by_any_filter(audited: Server) -> None:
    model = audited.make_model().id
    audited.client().models.delete(model)
    user = administration.make_user(audited.app, "Ada", email="ada@example.com")
    done = in_process.on(audited, "audit", "list", "--resource", model)
    assert done.returncode == 0, done.stderr
    types = [line.split("\t")[1] for line in done.stdout.splitlines()]
    assert types[0] in {"blobs.erased", "resource.deleted"}
    assert types[-1] == "model.imported"
    both = ("--type", "user.added", "--type", "resource.deleted", "--json")
    found = json.loads(in_process.on(audited, "audit", "list", *both).stdout)["data"]
    assert {one["type"] for one in found} == {"user.added", "resource.deleted"}
    assert user in {one[one["type"]]["id"] for one in found}
    for options in (
        ("--until", "2020-01-01"),
        ("--email", "ada@example.com"),
        ("--since", "2999-01-01"),
    ):
        assert in_process.on(audited, "audit", "list", *options).stdout == ""
    some = in_process.on(audited, "audit", "list", "--limit", "2")
    assert len(some.stdout.splitlines()) == 2
    assert "There are more" in some.stderr


def test_the_operator_reads_what_was_done_to_the_whole_server(audited: Server) -> None:
    """Events of no organization: no organization's list has them."""
    done = in_process.run_cli("audit", "operator", "--data", str(audited.data), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["data"]
    assert "base.added" in {one["type"] for one in found}
    own = json.loads(in_process.on(audited, "audit", "list", "--json").stdout)["data"]
    assert not {one["id"] for one in own} & {one["id"] for one in found}
    first = in_process.run_cli("audit", "operator", "--data", str(audited.data), "--limit", "1")
    assert first.stdout.split("\t")[-1].strip() == found[0]["id"]


def test_an_admin_key_over_http_gets_the_same(audited: Server) -> None:
    key = administration.make_admin_key(audited.app)
    settings = {"TUNEWARDEN_URL": audited.url, "TUNEWARDEN_ADMIN_KEY": key}
    export = in_process.run_cli("audit", "export", "--type", "api_key.created", settings=settings)
    assert export.returncode == 0, export.stderr
    lines = [json.loads(line) for line in export.stdout.splitlines()]
    assert lines
    assert {one["type"] for one in lines} == {"api_key.created"}
    local = in_process.on(audited, "audit", "export", "--type", "api_key.created")
    assert local.stdout == export.stdout


def test_the_retention_period_is_shown_and_set(audited: Server) -> None:
    assert in_process.on(audited, "audit", "retention").stdout == "for ever\n"
    refused = in_process.on(audited, "audit", "retention", "--days", "89")
    assert refused.returncode == 1
    assert "90" in refused.stderr
    assert in_process.on(audited, "audit", "retention", "--days", "400").stdout == "400 days\n"
    assert in_process.on(audited, "audit", "retention", "--for-ever").stdout == "for ever\n"
    both = in_process.on(audited, "audit", "retention", "--days", "400", "--for-ever")
    assert both.returncode == 2


def test_what_is_missing_is_named_and_the_exit_status_says_so(audited: Server) -> None:

    wait_until(lambda: digests.last_n(audited.app.database) > 0, "the runner made a digest")
    done = in_process.on(audited, "audit", "verify")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    assert "1 digests and " in done.stderr
    connection = sqlite3.connect(audited.data / "tunewarden.sqlite")
    with connection:
        connection.execute("DROP TRIGGER audit_events_stay")
        [[victim]] = connection.execute("SELECT id FROM audit_events WHERE n = 2").fetchall()
        connection.execute("DELETE FROM audit_events WHERE n = 2")
    connection.close()
    done = in_process.on(audited, "audit", "verify")
    assert done.returncode == 1
    assert f"event {victim}: an event is missing" in done.stdout
    found = json.loads(in_process.on(audited, "audit", "verify", "--json").stdout)
    assert [one["event"] for one in found["problems"]] == [victim]
