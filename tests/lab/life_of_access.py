"""A machine of users, roles, keys, projects and running streams, and a simple model of who may do what.

The database is real, and so are two workers' admissions with their caches; the clock moves by hand, both ways.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.fakes.fence import FakeFence, Floor

from tunewarden import audit
from tunewarden.clock import to_micros
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.errors import Error, Kind
from tunewarden.identity import (
    expiry,
    key_format,
    keys,
    project_keys,
    project_members,
    projects,
    service_accounts,
    user_commands,
    users,
)
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.key_format import Expired
from tunewarden.identity.policy import Action, ProjectRole, Role, ServiceAccountRole
from tunewarden.serving.admission import Admissions, Serving

BASE = "base"
SECOND = 1_000_000
STREAMS_MAX = 24
LIVES = st.sampled_from([None, 1, 5, 30])
ROLES = st.sampled_from(ProjectRole)
CHOSEN = st.integers(0, 1000)
SCOPES = st.sampled_from([(), ("api.model.request",), ("api.files.read",), ("api.all.read",)])
# What each scope of the above allows of the actions that are looked at, in the model's own words.
LOOKED_AT = (Action.USE_MODELS, Action.WRITE_FILES, Action.READ_FILES, Action.DELETE)
BY_SCOPE = {
    "api.model.request": {Action.USE_MODELS},
    "api.files.read": {Action.READ_FILES},
    "api.all.read": {Action.READ_FILES},
}
BY_ROLE = {
    "owner": {Action.USE_MODELS, Action.WRITE_FILES, Action.READ_FILES},
    "member": {Action.USE_MODELS, Action.WRITE_FILES, Action.READ_FILES},
    "viewer": {Action.USE_MODELS, Action.READ_FILES},
}


class SetClock:
    """A clock that stands still where it is set."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 22, 10, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class User:
    """A person, or a service account of a project."""

    id: str
    project: str | None
    is_owner: bool = False
    is_there: bool = True


@dataclass
class Key:
    """A key as the model has it."""

    id: str
    text: str
    user: User
    project: str
    scopes: tuple[str, ...]
    expires_at: int | None
    is_revoked: bool = False
    was_refused_for_its_end: bool = False


@dataclass
class Stream:
    """A running request of a worker."""

    key: Key
    serving: Serving
    aborts: list[str] = field(default_factory=list)


@dataclass
class Ground:
    """A database to copy, and what is in it."""

    path: Path
    project: str
    owner: User
    administrator: Administrator


class Access(RuleBasedStateMachine):
    """Changes in any order; after each of them, who may do what is as the model says."""

    ground: Ground
    told: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        # One thread: what is done in the background is done before what is asked of it next.
        self.loop.set_default_executor(ThreadPoolExecutor(1))
        self.directory = TemporaryDirectory(prefix="access-", dir="/dev/shm")
        path = Path(self.directory.name) / "test.sqlite"
        shutil.copyfile(self.ground.path, path)
        self.clock = SetClock()
        self.database = SqliteDatabase(path, self.clock, migrate=False)
        self.workers = [
            Admissions(self.database, FakeFence(Floor(), self.clock), self.clock) for _ in range(2)
        ]
        self.admin = self.ground.administrator
        self.owner = User(self.ground.owner.id, None, is_owner=True)
        self.users = [self.owner]
        self.projects = {self.ground.project: True}
        self.members: dict[tuple[str, str], str] = {}
        self.keys: list[Key] = []
        self.streams: list[Stream] = []

    def teardown(self) -> None:
        self.told["runs"] += 1
        # What the workers scheduled to look again is never called.
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.directory.cleanup()

    @initialize()
    def begin(self) -> None:
        """Some of each kind, with keys."""
        home = self.ground.project
        self._made_key(self.owner, home, (), None)
        for role, seconds in ((ProjectRole.MEMBER, None), (ProjectRole.VIEWER, 30)):
            self.add_person()
            self.add_to_project(-1, 0, role)
            self._made_key(self.users[-1], home, (), seconds)
        self.add_person()
        self.set_role(-1, is_owner=True)
        self.add_project()
        self._made_key(self.users[-1], [*self.projects][-1], (), None)
        self.add_account(0, has_key=True, seconds=None)
        self.everybody_streams(0)
        self.everybody_streams(1)

    # What administrators do.

    @rule()
    def add_person(self) -> None:
        with self.database.write() as tx:
            user_id = users.add(
                tx,
                self.admin.organization_id,
                name="p",
                email=None,
                role=Role.READER,
                actor=audit.SERVER,
            )
        self.users.append(User(user_id, None))

    @rule(which=CHOSEN, is_owner=st.booleans())
    def set_role(self, which: int, *, is_owner: bool) -> None:
        user = self._person(which)
        # The administrator stays one: else nobody would change anything.
        if user is None or user is self.owner:
            return
        role = Role.OWNER if is_owner else Role.READER
        user_commands.set_role(self.database, self.admin, user.id, role)
        if user.is_owner != is_owner:
            for key in self.keys:  # of a project that only Owners may use without being in it
                outside = (user.id, key.project) not in self.members
                key.is_revoked |= key.user is user and outside
        user.is_owner = is_owner

    @rule(which=CHOSEN)
    def remove_person(self, which: int) -> None:
        user = self._person(which)
        if user is None or user is self.owner:
            return
        user_commands.remove(self.database, self.admin, user.id)
        self._forget(user)

    @rule()
    def add_project(self) -> None:
        if len(self.projects) < 4:
            made = projects.add(self.database, self.admin, "p")
            self.projects[made.id] = True

    @rule(which=CHOSEN)
    def archive(self, which: int) -> None:
        project = self._project(which)
        if project is None or project == self.ground.project:
            return
        projects.archive(self.database, self.admin, project, lambda _tx, _project: {})
        self.projects[project] = False

    @rule(which=CHOSEN, where=CHOSEN, role=ROLES)
    def add_to_project(self, which: int, where: int, role: ProjectRole) -> None:
        user, project = self._person(which), self._project(where)
        if user is None or project is None:
            return
        if (user.id, project) in self.members:
            project_members.update(self.database, self.admin, project, user.id, role)
        else:
            project_members.add(
                self.database, self.admin, project, user_id=user.id, email=None, role=role
            )
            if not user.is_owner:
                for key in self.keys:  # of an earlier membership
                    key.is_revoked |= key.user is user and key.project == project
        self.members[user.id, project] = role.value

    @rule(which=CHOSEN)
    def remove_from_project(self, which: int) -> None:
        people = [(u, p) for u, p in self.members if self._of(u).project is None]
        if not people:
            return
        user_id, project = people[which % len(people)]
        project_members.remove(self.database, self.admin, project, user_id)
        del self.members[user_id, project]

    @rule(where=CHOSEN, has_key=st.booleans(), seconds=LIVES)
    def add_account(self, where: int, *, has_key: bool, seconds: int | None) -> None:
        project = self._project(where)
        if project is None:
            return
        account, made = service_accounts.create(
            self.database,
            self.admin,
            project,
            name="a",
            has_key=has_key,
            expires_in_seconds=seconds if has_key else None,
        )
        user = User(account.id, project)
        self.users.append(user)
        if made is not None:
            self.members[user.id, project] = "member"
            self.keys.append(Key(made.key.id, made.text, user, project, (), self._end(seconds)))

    @rule(which=CHOSEN, role=st.sampled_from(ServiceAccountRole))
    def set_account(self, which: int, role: ServiceAccountRole) -> None:
        user = self._account(which)
        if user is None or user.project is None or not self.projects[user.project]:
            return
        service_accounts.update(
            self.database, self.admin, user.project, user.id, name=None, role=role
        )
        self.members.pop((user.id, user.project), None)
        if role is not ServiceAccountRole.NONE:
            self.members[user.id, user.project] = role.value

    @rule(which=CHOSEN)
    def delete_account(self, which: int) -> None:
        user = self._account(which)
        if user is None or user.project is None:
            return
        service_accounts.remove(self.database, self.admin, user.project, user.id)
        self._forget(user)

    @rule(which=CHOSEN, where=CHOSEN, scopes=SCOPES, seconds=LIVES)
    def add_key(self, which: int, where: int, scopes: tuple[str, ...], seconds: int | None) -> None:
        user, project = self._person(which), self._project(where)
        if user is not None and project is not None and len(self.keys) < 12:
            self._made_key(user, project, scopes, seconds)

    @rule(which=CHOSEN)
    def revoke(self, which: int) -> None:
        key = self._listed(which)
        if key is not None:
            project_keys.revoke(self.database, self.admin, key.project, key.id)
            key.is_revoked = True

    @rule(which=CHOSEN, scopes=st.none() | SCOPES, seconds=LIVES)
    def change_key(self, which: int, scopes: tuple[str, ...] | None, seconds: int | None) -> None:
        key = self._listed(which)
        if key is None or not self.projects[key.project]:
            return
        has_ended = self._has_ended(key)
        with pytest.raises(Error, match="has expired") if has_ended else nullcontext():
            project_keys.update(
                self.database,
                self.admin,
                key.project,
                key.id,
                scopes=scopes,
                expires_in_seconds=seconds,
            )
        if has_ended:
            return
        key.scopes = key.scopes if scopes is None else scopes
        key.expires_at = key.expires_at if seconds is None else self._end(seconds)

    # Time.

    @rule(seconds=st.sampled_from([0.4, 1.0, 7.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.moment += timedelta(seconds=seconds)
        self.told["waits"] += 1

    @rule(seconds=st.sampled_from([0.4, 3.0, 60.0]))
    def set_the_clock_back(self, seconds: float) -> None:
        self.clock.moment -= timedelta(seconds=seconds)
        self.told["clocks set back"] += 1

    # What clients do.

    @rule(worker=st.integers(0, 1))
    def everybody_streams(self, worker: int) -> None:
        for key in self.keys:
            if len(self.streams) < STREAMS_MAX:
                self._stream(key, worker)

    def _stream(self, key: Key, worker: int) -> None:
        may = self._status(key, Action.USE_MODELS)
        aborts: list[str] = []
        status, serving = self._ask(worker, key, lambda: aborts.append("cut"))
        assert status == may, (status, may)
        if serving is not None:
            self.streams.append(Stream(key, serving, aborts))
            self.told["streams"] += 1

    @rule(which=CHOSEN)
    def end_stream(self, which: int) -> None:
        if self.streams:
            del self.streams[which % len(self.streams)]

    # What holds after each of them.

    @invariant()
    def everybody_may_what_the_model_says(self) -> None:
        for key in self.keys:
            for action in LOOKED_AT:
                assert self._looked_up(key, action) == self._status(key, action), (key, action)
        self.told["looks"] += len(self.keys) * len(LOOKED_AT)

    @invariant()
    def what_may_no_longer_run_is_cut_and_nothing_else(self) -> None:
        self.loop.run_until_complete(self._follow())
        for one in list(self.streams):
            may = self._status(one.key, Action.USE_MODELS) == 200
            assert one.aborts == ([] if may else ["cut"]), one
            if one.aborts:
                self.streams.remove(one)
                self.told["cut"] += 1

    @invariant()
    def both_workers_caches_say_the_same(self) -> None:
        for worker, key in enumerate(self.keys[-2:]):
            status, serving = self._ask(worker, key, lambda: None)
            assert status == self._status(key, Action.USE_MODELS), key
            if serving is not None:
                self.workers[worker].end(serving)

    # The model.

    def _status(self, key: Key, action: Action) -> int:
        """Return what the model answers: 200, 401 or 403. It notes who was refused because of a key's end."""
        if key.is_revoked or not key.user.is_there or not self.projects[key.project]:
            return 401
        if self._has_ended(key):
            key.was_refused_for_its_end = True
            return 401
        allowed = set(BY_ROLE.get(self.members.get((key.user.id, key.project), ""), set()))
        if key.user.is_owner:
            allowed = {*LOOKED_AT}
        if key.scopes:
            allowed &= set().union(*(BY_SCOPE[scope] for scope in key.scopes))
        return 200 if action in allowed else 403

    def _has_ended(self, key: Key) -> bool:
        now = to_micros(self.clock.moment)
        return key.was_refused_for_its_end or (key.expires_at is not None and now >= key.expires_at)

    def _end(self, seconds: int | None) -> int | None:
        now = to_micros(self.clock.moment)
        return None if seconds is None else (now // SECOND + seconds) * SECOND

    # What is asked of the real one.

    def _looked_up(self, key: Key, action: Action) -> int:
        """Look a key up as the API does: what is refused because a key has expired is noted first."""
        try:
            caller = keys.authenticate(self.database, key.text, "req")
            with self.database.read() as tx:
                keys.authorize_now(tx, caller, action)
        except Expired as expired:
            expiry.note(self.database, expired)
            return 401
        except Error as refused:
            return {Kind.UNAUTHENTICATED: 401, Kind.FORBIDDEN: 403}[refused.kind]
        return 200

    def _ask(
        self, worker: int, key: Key, abort: Callable[[], object]
    ) -> tuple[int, Serving | None]:
        """Ask a worker for the base, as a chat does; wait for what it does in the background."""
        presented = key_format.present(key.text)

        async def admit() -> Serving:
            try:
                _, serving = self.workers[worker].admit(
                    BASE, presented, lambda tx: keys.holder(tx, presented, ""), abort, int
                )
            finally:
                await self._settled()
            return serving

        try:
            return 200, self.loop.run_until_complete(admit())
        except Error as refused:
            return {Kind.UNAUTHENTICATED: 401, Kind.FORBIDDEN: 403}[refused.kind], None

    async def _follow(self) -> None:
        """Let both workers look after their streams as they do within 0.3 s."""
        for worker in self.workers:
            running = [one.serving for one in self.streams if one.serving in worker._running]
            worker._standing.look(running, self.database.stamp())
            while worker._standing.unread:
                worker._standing.read_some(running)
        await self._settled()

    async def _settled(self) -> None:
        await self.loop.run_in_executor(None, lambda: None)

    def _made_key(
        self, user: User, project: str, scopes: tuple[str, ...], seconds: int | None
    ) -> None:
        may = user.is_owner or (user.id, project) in self.members
        with nullcontext() if may else pytest.raises(Error, match="is not in the project"):
            made, text = project_keys.create(
                self.database,
                self.admin,
                project,
                user_id=user.id,
                name="k",
                scopes=scopes,
                expires_in_seconds=seconds,
            )
        if may:
            self.keys.append(Key(made.key.id, text, user, project, scopes, self._end(seconds)))

    def _forget(self, user: User) -> None:
        user.is_there = False
        for key in self.keys:
            key.is_revoked |= key.user is user
        self.members = {one: role for one, role in self.members.items() if one[0] != user.id}

    def _of(self, user_id: str) -> User:
        return next(user for user in self.users if user.id == user_id)

    def _person(self, which: int) -> User | None:
        found = [user for user in self.users if user.is_there and user.project is None]
        return found[which % len(found)]

    def _account(self, which: int) -> User | None:
        found = [user for user in self.users if user.is_there and user.project is not None]
        return found[which % len(found)] if found else None

    def _project(self, which: int) -> str | None:
        found = [project for project, is_active in self.projects.items() if is_active]
        return found[which % len(found)] if found else None

    def _listed(self, which: int) -> Key | None:
        found = [key for key in self.keys if not key.is_revoked]
        return found[which % len(found)] if found else None
