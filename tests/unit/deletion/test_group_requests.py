"""What a group is answered, and what it commits, is what its members get one by one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support import fine_tuning_rows as rows
from tests.support import servers
from tests.support.servers import LOCAL_BASE

from tunewarden.app import App
from tunewarden.db.database import Tx
from tunewarden.deletion import group_requests
from tunewarden.deletion.group_requests import Wanted
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.finetuning.states import State
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller, Role
from tunewarden.registry import alias_rows, models
from tunewarden.registry.alias_rows import AliasTarget
from tunewarden.registry.artifacts import Artifact, ArtifactKind
from tunewarden.registry.holds import Holds

# What a commitment writes, without what is minted or a time.
WRITTEN = (
    "SELECT id, state, epoch FROM artifacts ORDER BY n",
    "SELECT artifact_n, requested_by, epoch, log_since, parent_n IS NULL FROM deletions ORDER BY n",
    "SELECT type, organization_id, actor_key_id, resource_id FROM audit_events ORDER BY n",
    "SELECT name, version, deleted_at IS NULL FROM aliases ORDER BY n",
    "SELECT id, status FROM jobs ORDER BY n",
)


class _RolledBack(Exception):
    pass


class _Tried:
    """The database, whose writes are looked at and undone."""

    def __init__(self, app: App) -> None:
        self._database = app.database
        self.written: list[list[Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @contextmanager
    def write(self, **options: bool) -> Iterator[Tx]:
        with suppress(_RolledBack), self._database.write(**options) as tx:
            yield tx
            self.written += [tx.rows(sql) for sql in WRITTEN]
            raise _RolledBack


@pytest.fixture
def app(data: Path) -> App:
    servers.prepare_local_base(data)
    return servers.open_data(data)


@pytest.fixture
def key(app: App) -> str:
    return (app.config.data / "owner.key").read_text().strip()


def _answers(
    app: App, caller: Caller, wanted: Wanted, attempt: Attempt
) -> tuple[list[tuple[object, ...]], list[list[Any]]]:
    """Return what each would be answered, and what would be written."""
    tried: Any = _Tried(app)
    found: list[tuple[object, ...]] = [
        (one.kind, one.code, str(one))
        if isinstance(one, Error)
        else (one.part, one.deletion.artifact_id, one.deletion.epoch, one.deletion.parent is None)
        for one in group_requests.request_together(tried, caller, wanted, attempt, log_size=0)
    ]
    return found, tried.written


def _one_by_one(
    monkeypatch: pytest.MonkeyPatch, *given: Any
) -> tuple[list[tuple[object, ...]], list[list[Any]]]:
    with monkeypatch.context() as patch:
        patch.setattr(group_requests, "_free", lambda *_: {})
        return _answers(*given)


def _mixed(app: App, key: str) -> list[str]:
    """Models in every relation to others, among free ones; some need what comes before or after them."""
    caller = rows.caller_of(app, key)
    free = [servers.import_adapter(app, key).id for _ in range(4)]
    held, protected, meant, started = (servers.import_adapter(app, key) for _ in range(4))
    Holds(app.database, app.keyring).place(caller, ArtifactKind.MODEL, held.id, "a dispute")
    done = rows.make_job(app, key, state=State.SUCCEEDED)
    first, last = (rows.make_model(app, key, job_id=done, step=step) for step in (2, 4))
    whole = rows.make_model(app, key, job_id=done)
    running = rows.make_job(app, key, state=State.PAUSED, start_n=started.n)
    made = rows.make_model(app, key, job_id=running)
    with app.database.write() as tx:
        models.set_protected(tx, protected.n, is_protected=True)
        alias = alias_rows.insert(tx, caller.organization_id, "prod")
        targets = [AliasTarget(meant.n, meant.id, 100)]
        alias_rows.add_version(tx, alias, targets, changed_by=caller.key_id)
        _, text = keys.create(tx, organization="elsewhere", role=Role.OWNER, name="x")
    foreign = servers.import_adapter(app, text).id
    file = rows.make_file(app, key)
    return [
        free[0], first.id, held.id, free[1], whole.id, last.id, protected.id, "ft:nobody", foreign,
        made.id, LOCAL_BASE, free[2], meant.id, "prod", started.id, file, free[3],
    ]  # fmt: skip


def _wanted(ids: Sequence[str]) -> Wanted:
    file, model = ArtifactKind.FILE, ArtifactKind.MODEL
    return [(file if one.startswith("file-") else model, one) for one in ids]


@pytest.mark.parametrize("force", [False, True])
def test_a_group_is_answered_and_committed_as_its_members_are(
    app: App, key: str, monkeypatch: pytest.MonkeyPatch, *, force: bool
) -> None:
    ids, caller, attempt = _mixed(app, key), rows.caller_of(app, key), Attempt(force=force)
    with app.database.read() as tx:
        free = models.alone_among(tx, caller.organization_id, ids)
    assert len(free) >= 4, "some of them go the short way"
    for order in (ids, ids[::-1]):
        given = app, caller, _wanted(order), attempt
        together, alone = _answers(*given), _one_by_one(monkeypatch, *given)
        assert together == alone
        assert {kind for kind, *_ in together[0]} >= {Kind.NOT_FOUND, Kind.CONFLICT}


def test_who_lost_the_role_is_refused_once_and_nothing_is_written(
    app: App, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = rows.caller_of(app, key)
    ids = [servers.import_adapter(app, key).id for _ in range(3)]
    with app.database.write() as tx:
        tx.run("UPDATE users SET role = 'reader' WHERE id = :id", id=caller.user_id)
    given = app, caller, _wanted(["ft:nobody", *ids]), Attempt()
    together = _answers(*given)
    assert [kind for kind, *_ in together[0]] == [Kind.NOT_FOUND, Kind.FORBIDDEN]
    assert together == _one_by_one(monkeypatch, *given)


def test_a_later_check_sees_what_was_committed_before_it(
    app: App, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that keeps the latest counts what is left, and of that the members before are no part."""
    left: list[int] = []

    def recheck(tx: Tx, _: Artifact) -> None:
        left.append(len(tx.rows("SELECT 1 FROM artifacts WHERE state = 'active'")))

    ids = [servers.import_adapter(app, key).id for _ in range(3)]
    given = app, rows.caller_of(app, key), _wanted(ids), Attempt(recheck=recheck)
    assert _answers(*given) == _one_by_one(monkeypatch, *given)
    assert left == [3, 2, 1] * 2
