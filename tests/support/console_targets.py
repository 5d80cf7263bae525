"""What the console's pages are about: one of each, and one of each that is not there."""

from tests.api.test_authorization import FILE
from tests.support import administration, fine_tuning_rows, uploading, webhook_rows
from tests.support.servers import LOCAL_BASE, Server

from tunewarden.finetuning.states import State

UNKNOWN = f"ft:{LOCAL_BASE}:my-org::00000000"


def made(server: Server) -> dict[str, list[tuple[str, str]]]:
    """Make what stands for each name in a path: (kind of target, value)."""
    app, key = server.app, server.owner_key
    model, gone = server.make_model().id, server.make_model().id
    deleted = server.request("DELETE", f"/v1/models/{gone}", key=key)
    file, other = (uploading.post(server, "/v1/files", *FILE).json for _ in range(2))
    upload = {"filename": "a.jsonl", "mime_type": "text/plain", "purpose": "fine-tune", "bytes": 9}
    assert server.post("/v1/uploads", upload).status == 200
    named = server.make_model().id
    alias = server.post("/v1/aliases", {"name": "shown", "model": named}).json["name"]
    rule = server.post("/v1/retention/rules", {"action": "archive", "older_than_days": 9}).json
    erased = server.request("DELETE", f"/v1/files/{other['id']}?cascade=models", key=key)
    return {
        "model_id": [("own", model), ("unknown", UNKNOWN)],
        "deletion_id": [
            ("own", str(deleted.header("tunewarden-deletion"))),
            ("unknown", "del_nobody"),
        ],
        "job_id": [
            ("own", fine_tuning_rows.make_job(app, key, state=State.SUCCEEDED)),
            ("unknown", "ftjob-nobody"),
        ],
        "file_id": [("own", str(file["id"])), ("unknown", "file-nobody")],
        "case_id": [
            ("own", str(erased.header("tunewarden-deletion-case"))),
            ("unknown", "case_nobody"),
        ],
        "endpoint_id": [
            ("own", webhook_rows.make_endpoint(app, key)),
            ("unknown", "whe_nobody"),
        ],
        "rule_id": [("own", str(rule["id"])), ("unknown", "rule_nobody")],
        "project_id": [
            ("own", _project_with_members(server)),
            ("unknown", "proj_nobody"),
        ],
        "user_id": [("own", fine_tuning_rows.caller_of(app, key).user_id), ("unknown", "user-0")],
        "invite_id": [("unknown", "invite-nobody")],
        "hold_id": [("unknown", "hold_nobody")],
        "upload_id": [("unknown", "upload_nobody")],
        "key_id": [("unknown", "adminkey_nobody")],
        "session_id": [("unknown", "session_nobody")],
        "alias": [("own", alias), ("unknown", "nobody")],
        "name": [("own", "console.css"), ("unknown", "nothing.css")],
        "token": [("unknown", "nothing")],
    }


def _project_with_members(server: Server) -> str:
    project, _ = fine_tuning_rows.make_project(server.app)
    admin = administration.make_admin_key(server.app)
    member = {"user_id": administration.make_user(server.app, "shown"), "role": "member"}
    for what, fields in (("users", member), ("service_accounts", {"name": "shown"})):
        made = administration.ask(server, "POST", f"/projects/{project}/{what}", admin, fields)
        assert made.status == 200, made.body
    return project
