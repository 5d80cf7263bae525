"""Every act of the API on a data directory without a server, and a watch over the transactions of its database."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import apsw
from tests.support import administration, bases, fine_tuning_rows, jobs, servers, webhook_rows
from tests.support.uploading import CONTENT_TYPE, Field, form
from tests.support.webhook_receiver import Receiver

from tunewarden.api.direct import Direct, DirectAnswer
from tunewarden.api.server import Server
from tunewarden.app import answering, open_app
from tunewarden.config import Config
from tunewarden.finetuning.states import State
from tunewarden.ids import token
from tunewarden.registry.files import Owner

# Tables that say what there is and who may do what. Others hold counts, marks, leases, and steps on the way to a
# state that is recorded when it is reached.
STATE = frozenset(
    {
        "alias_targets", "alias_versions", "aliases", "invites", "key_rate_limits", "project_quotas",
        "rate_limits",
        "admin_api_keys", "api_keys", "artifacts", "audit_retention", "deletion_settings", "base_names", "bases",
        "checkpoint_permissions", "retention_rules", "files", "holds", "organizations", "project_members", "projects",
        "replicas", "sign_in_links", "uploads", "users", "webhook_endpoints",
    }
)  # fmt: skip


RULE = {"action": "delete", "older_than_days": 36_500}


class Watch:
    """Transactions that changed state and recorded nothing, on connections that are opened in this process."""

    def __init__(self) -> None:
        self.is_on = False
        self.silent: list[set[str]] = []
        self.recorded = 0

    def __call__(self, connection: apsw.Connection) -> None:
        changed: set[str] = set()

        def on_change(_kind: int, _database: str, table: str, _row: int) -> None:
            changed.add(table)

        def on_commit() -> bool:
            if self.is_on and changed & STATE and "audit_events" not in changed:
                self.silent.append(set(changed))
            self.recorded += self.is_on and "audit_events" in changed
            changed.clear()
            return False

        connection.set_update_hook(on_change)
        connection.set_commit_hook(on_commit)
        connection.set_rollback_hook(changed.clear)

    @contextmanager
    def on(self) -> Iterator[None]:
        self.is_on, self.silent, self.recorded = True, [], 0
        try:
            yield
        finally:
            self.is_on = False
        assert self.silent == [], f"changed without an event: {self.silent}"


class Place:
    """A data directory without a server, and its application in this process."""

    def __init__(self, data: Path, watch: Watch, receiver: Receiver) -> None:
        servers.prepare_local_base(data)
        self.watch = watch
        self.receiver = receiver
        self.data = data
        self.app = open_app(Config(data=data, webhook_http_to_loopback=True))
        scratch = data.parent / "scratch"
        scratch.mkdir()
        self.config = Config(data=data, scratch=scratch, scratch_may_be_a_disk=True)
        self.key = (data / "owner.key").read_text().strip()
        self.admin_key = administration.make_admin_key(self.app)
        self.app.fence.join()  # for exports
        self.direct = Direct(Server(answering(self.app)))
        self.adapter = bases.adapter().write(data.parent / "adapter")

    def ask(
        self, method: str, path: str, fields: object = None, *, parts: bytes = b"", key: str = ""
    ) -> DirectAnswer:
        body = parts or (b"" if fields is None else json.dumps(fields).encode())
        headers = {
            "authorization": f"Bearer {key or self.key_of(path)}",
            "content-type": CONTENT_TYPE if parts else "application/json",
            "content-length": str(len(body)),
        }
        return self.direct.ask(method, path, headers, [body] if body else [])

    def key_of(self, path: str) -> str:
        return self.admin_key if path.startswith("/v1/organization") else self.key

    def made(self, path: str, fields: object) -> str:
        answer = self.ask("POST", path, fields)
        assert answer.status == 200, answer.body
        return str(json.loads(answer.body)["id"])

    def file(self) -> str:
        caller = fine_tuning_rows.caller_of(self.app, self.key)
        owner = Owner(caller.organization_id, caller.project_id, caller.key_id)
        content = BytesIO(jobs.chats())
        file = self.app.files.store(owner, filename="a.jsonl", purpose="fine-tune", reader=content)
        return file.id

    def model(self) -> str:
        return servers.import_adapter(self.app, self.key).id

    def upload(self) -> str:
        fields = {
            "bytes": 4,
            "filename": "a.txt",
            "mime_type": "text/plain",
            "purpose": "user_data",
        }
        return self.made("/v1/uploads", fields)

    def part(self, upload: str) -> str:
        parts = form(Field("data", b"text", "a"))
        return str(
            json.loads(self.ask("POST", f"/v1/uploads/{upload}/parts", parts=parts).body)["id"]
        )

    def job(self, state: State) -> str:
        job = fine_tuning_rows.make_job(self.app, self.key)
        fine_tuning_rows.set_job(self.app, job, state=state)
        return job

    def user(self) -> str:
        return administration.make_user(self.app, "somebody")

    def project(self) -> str:
        return self.made("/v1/organization/projects", {"name": "p"})

    def member(self) -> str:
        """A path of a person in a project."""
        users = f"/v1/organization/projects/{self.project()}/users"
        user = self.made(users, {"user_id": self.user(), "role": "member"})
        return f"{users}/{user}"

    def name(self) -> str:
        """A name that nothing has."""
        return f"n{token(8)}"

    def alias(self) -> str:
        name = self.name()
        answer = self.ask("POST", "/v1/aliases", {"name": name, "model": self.model()})
        assert answer.status == 200, answer.body
        return name

    def rule(self) -> str:
        """A path of a retention rule that chooses nothing."""
        rules = "/v1/retention/rules"
        return f"{rules}/{self.made(rules, RULE)}"

    def paused(self) -> tuple[str, None]:
        """What resumes retention, which is paused."""
        self.rule()
        with self.app.database.write() as tx:
            tx.run("UPDATE retention_pauses SET paused_at = 1, reason = 'restore'")
        return "/v1/retention/resume", None

    def running(self) -> tuple[str, None]:
        """What runs a rule; nothing is paused."""
        self.ask("POST", "/v1/retention/resume")
        return f"{self.rule()}/run", None

    def invite(self) -> dict[str, str]:
        return {"email": f"{self.name()}@example.com", "role": "reader"}

    def account(self) -> str:
        """A path of a service account."""
        accounts = f"/v1/organization/projects/{self.project()}/service_accounts"
        return f"{accounts}/{self.made(accounts, {'name': 'robot'})}"

    def project_key(self) -> str:
        """A path of an API key of a project."""
        path, fields = self.new_project_key()
        return f"{path}/{self.made(path, fields)}"

    def new_project_key(self) -> tuple[str, dict[str, str]]:
        """What makes an API key for a person in a project."""
        project, _, user = self.member().partition("/users/")
        return f"{project}/api_keys", {"name": "key", "user_id": user}

    def checkpoint(self) -> str:
        job = fine_tuning_rows.make_job(self.app, self.key)
        model = fine_tuning_rows.make_checkpoint(self.app, self.key, job, 1, {"step": 1})
        return f"/v1/fine_tuning/checkpoints/{model.id}/permissions"

    def endpoint(self) -> str:
        """A path of a webhook endpoint. The one before goes: an organization has few."""
        webhooks = webhook_rows.operations(self.app)
        caller = fine_tuning_rows.caller_of(self.app, self.key)
        for one in webhooks.page(caller, after=None, limit=100):
            webhooks.delete(caller, one.endpoint.id)
        made = webhook_rows.make_endpoint(self.app, self.key, url=self.receiver.url())
        return f"/v1/webhook_endpoints/{made}"

    def redelivery(self) -> str:
        """A path that sends an event again."""
        path = self.endpoint()
        delivery = webhook_rows.make_delivery(self.app, self.key, path.rpartition("/")[2])
        return f"{path}/deliveries/{delivery}/redeliver"


Act = Callable[[Place], tuple[str, Any]]
FILE = form(Field("purpose", b"user_data"), Field("file", b"x", "a.txt"))


def _shared(place: Place) -> str:
    """A path of a permission."""
    path = place.checkpoint()
    project = fine_tuning_rows.make_project(place.app)[0]
    answer = place.ask("POST", path, {"project_ids": [project]})
    return f"{path}/{json.loads(answer.body)['data'][0]['id']}"


def _completed(place: Place) -> tuple[str, Any]:
    upload = place.upload()
    return f"/v1/uploads/{upload}/complete", {"part_ids": [place.part(upload)]}


def _imported(_: Place) -> tuple[str, Any]:
    files = bases.adapter()
    return "/v1/models", form(
        Field("base", servers.LOCAL_BASE.encode()),
        Field("adapter_config", files.config, "adapter_config.json"),
        Field("adapter_model", files.weights, "adapter_model.safetensors"),
    )


ACTS: dict[str, Act] = {
    "POST /v1/models": _imported,
    "POST /v1/models/{model_id}": lambda p: (f"/v1/models/{p.model()}", {"archived": True}),
    "DELETE /v1/models/{model_id}": lambda p: (f"/v1/models/{p.model()}", None),
    "GET /v1/models/{model_id}/content": lambda p: (f"/v1/models/{p.model()}/content", None),
    "POST /v1/console/links": lambda _: ("/v1/console/links", None),
    "POST /v1/holds": lambda p: ("/v1/holds", {"model": p.model(), "reason": "a dispute"}),
    "POST /v1/holds/{hold_id}/lift": lambda p: (
        f"/v1/holds/{p.made('/v1/holds', {'model': p.model(), 'reason': 'a dispute'})}/lift", None,
    ),
    "POST /v1/deletions": lambda p: ("/v1/deletions", {"ids": [p.model(), p.file()]}),
    "POST /v1/retention/resume": lambda p: p.paused(),
    "POST /v1/retention/rules": lambda _: ("/v1/retention/rules", RULE),
    "POST /v1/retention/rules/{rule_id}": lambda p: (p.rule(), {"enabled": True}),
    "POST /v1/retention/rules/{rule_id}/run": lambda p: p.running(),
    "DELETE /v1/retention/rules/{rule_id}": lambda p: (p.rule(), None),
    "POST /v1/files": lambda _: ("/v1/files", FILE),
    "POST /v1/files/search": lambda _: ("/v1/files/search", {"texts": ["anything"]}),
    "DELETE /v1/files/{file_id}": lambda p: (f"/v1/files/{p.file()}", None),
    "POST /v1/uploads": lambda _: (
        "/v1/uploads",
        {"bytes": 4, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"},
    ),
    "POST /v1/uploads/{upload_id}/parts": lambda p: (
        f"/v1/uploads/{p.upload()}/parts", form(Field("data", b"text", "a")),
    ),
    "POST /v1/uploads/{upload_id}/complete": _completed,
    "POST /v1/uploads/{upload_id}/cancel": lambda p: (f"/v1/uploads/{p.upload()}/cancel", None),
    "POST /v1/fine_tuning/jobs": lambda p: (
        "/v1/fine_tuning/jobs", {"model": servers.LOCAL_BASE, "training_file": p.file()},
    ),
    "POST /v1/fine_tuning/jobs/{job_id}/cancel": lambda p: (
        f"/v1/fine_tuning/jobs/{p.job(State.PAUSED)}/cancel", None,
    ),
    "POST /v1/fine_tuning/jobs/{job_id}/pause": lambda p: (
        f"/v1/fine_tuning/jobs/{p.job(State.QUEUED)}/pause", None,
    ),
    "POST /v1/fine_tuning/jobs/{job_id}/resume": lambda p: (
        f"/v1/fine_tuning/jobs/{p.job(State.PAUSED)}/resume", None,
    ),
    "POST /v1/fine_tuning/checkpoints/{model_id}/permissions": lambda p: (
        p.checkpoint(), {"project_ids": [fine_tuning_rows.make_project(p.app)[0]]},
    ),
    "DELETE /v1/fine_tuning/checkpoints/{model_id}/permissions/{permission_id}": lambda p: (
        _shared(p), None,
    ),
    "POST /v1/organization/audit_logs/retention": lambda _: (
        "/v1/organization/audit_logs/retention", {"days": 90},
    ),
    "POST /v1/organization/deletion_settings": lambda _: (
        "/v1/organization/deletion_settings", {"in_use_minutes": 5},
    ),
    "POST /v1/organization/projects": lambda _: ("/v1/organization/projects", {"name": "p"}),
    "POST /v1/organization/projects/{project_id}": lambda p: (
        f"/v1/organization/projects/{p.project()}", {"name": "renamed"},
    ),
    "POST /v1/organization/projects/{project_id}/archive": lambda p: (
        f"/v1/organization/projects/{p.project()}/archive", None,
    ),
    "POST /v1/organization/projects/{project_id}/users": lambda p: (
        f"/v1/organization/projects/{p.project()}/users", {"user_id": p.user(), "role": "member"},
    ),
    "POST /v1/organization/projects/{project_id}/users/{user_id}": lambda p: (
        p.member(), {"role": "viewer"},
    ),
    "DELETE /v1/organization/projects/{project_id}/users/{user_id}": lambda p: (p.member(), None),
    "POST /v1/organization/projects/{project_id}/service_accounts": lambda p: (
        f"/v1/organization/projects/{p.project()}/service_accounts",
        {"name": "robot"},
    ),
    "POST /v1/organization/projects/{project_id}/service_accounts/{service_account_id}": lambda p: (
        p.account(),
        {"role": "owner"},
    ),
    "DELETE /v1/organization/projects/{project_id}/service_accounts/{service_account_id}": lambda p: (
        p.account(),
        None,
    ),
    "POST /v1/organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys": lambda p: (
        f"{p.account()}/api_keys",
        {"name": "key"},
    ),
    "POST /v1/organization/projects/{project_id}/api_keys": lambda p: p.new_project_key(),
    "POST /v1/organization/projects/{project_id}/api_keys/{api_key_id}": lambda p: (
        p.project_key(),
        {"scopes": ["api.all.read"]},
    ),
    "POST /v1/organization/projects/{project_id}/api_keys/{api_key_id}/rotate": lambda p: (
        f"{p.project_key()}/rotate",
        None,
    ),
    "DELETE /v1/organization/projects/{project_id}/api_keys/{api_key_id}": lambda p: (
        p.project_key(),
        None,
    ),
    "POST /v1/organization/projects/{project_id}/quota": lambda p: (
        f"/v1/organization/projects/{p.project()}/quota",
        {"max_files": 5},
    ),
    "POST /v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}": lambda p: (
        f"/v1/organization/projects/{p.project()}/rate_limits/rl-{servers.LOCAL_BASE}",
        {"max_requests_per_1_minute": 5},
    ),
    "POST /v1/organization/projects/{project_id}/api_keys/{api_key_id}/rate_limit": lambda p: (
        f"{p.project_key()}/rate_limit",
        {"max_requests_per_1_minute": 5},
    ),
    "POST /v1/webhook_endpoints": lambda p: (
        "/v1/webhook_endpoints",
        {"name": "x", "url": p.receiver.url(), "event_types": [p.endpoint() and "model.created"]},
    ),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}": lambda p: (p.endpoint(), {"name": p.name()}),
    "DELETE /v1/webhook_endpoints/{webhook_endpoint_id}": lambda p: (p.endpoint(), None),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret": lambda p: (
        f"{p.endpoint()}/rotate_secret", {},
    ),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}/test": lambda p: (
        f"{p.endpoint()}/test", {"event_type": "model.created"},
    ),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}/deliveries/{delivery_id}/redeliver": lambda p: (
        p.redelivery(), None,
    ),
    "POST /v1/aliases": lambda p: ("/v1/aliases", {"name": p.name(), "model": p.model()}),
    "POST /v1/aliases/{name}": lambda p: (f"/v1/aliases/{p.alias()}", {"model": p.model()}),
    "DELETE /v1/aliases/{name}": lambda p: (f"/v1/aliases/{p.alias()}", None),
    "POST /v1/organization/invites": lambda p: ("/v1/organization/invites", p.invite()),
    "DELETE /v1/organization/invites/{invite_id}": lambda p: (
        f"/v1/organization/invites/{p.made('/v1/organization/invites', p.invite())}",
        None,
    ),
    "POST /v1/organization/admin_api_keys": lambda _: (
        "/v1/organization/admin_api_keys",
        {"name": "key"},
    ),
    "DELETE /v1/organization/admin_api_keys/{key_id}": lambda p: (
        f"/v1/organization/admin_api_keys/{p.made('/v1/organization/admin_api_keys', {'name': 'key'})}",
        None,
    ),
    "POST /v1/organization/users/{user_id}": lambda p: (
        f"/v1/organization/users/{p.user()}", {"role": "owner"},
    ),
    "DELETE /v1/organization/users/{user_id}": lambda p: (f"/v1/organization/users/{p.user()}", None),
}  # fmt: skip
