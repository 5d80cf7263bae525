"""The service account, the API key and the admin key that the suite's fixed ids are to find, and their cursors.

They are rows as the operations write them, under the suite's ids; the secret of none is known to anybody.
"""

from tunewarden.db.database import Tx

PROJECT = "project_id"
ACCOUNT = "service_account_id"
API_KEY = "api_key_id"
ADMIN_KEY = "key_id"
CURSOR = "after"


def restore(tx: Tx, organization_id: str, owner_id: str) -> None:
    """Have them as they were before any test."""
    tx.run(
        "INSERT INTO projects (id, organization_id, name, is_default, created_at)"
        " VALUES (:id, :organization, 'conformance', 0, :now)"
        " ON CONFLICT (id) DO UPDATE SET archived_at = NULL",
        id=PROJECT,
        organization=organization_id,
        now=tx.now_micros,
    )
    for account in (ACCOUNT, CURSOR):
        tx.run(
            "INSERT INTO users (id, organization_id, name, role, created_at, service_project_id)"
            " VALUES (:id, :organization, 'conformance', 'reader', :now, :project)"
            " ON CONFLICT (id) DO UPDATE SET removed_at = NULL, name = 'conformance',"
            " service_project_id = excluded.service_project_id",
            id=account,
            organization=organization_id,
            now=tx.now_micros,
            project=PROJECT,
        )
    for key in (API_KEY, CURSOR):
        tx.run(
            "INSERT INTO api_keys (id, organization_id, project_id, user_id, name, secret_sha256, scopes, created_at)"
            " VALUES (:id, :organization, :project, :user, 'conformance', :sha, '', :now)"
            " ON CONFLICT (id) DO UPDATE SET revoked_at = NULL, expires_at = NULL, expired_at = NULL",
            id=key,
            organization=organization_id,
            project=PROJECT,
            user=owner_id,
            sha=bytes(32),
            now=tx.now_micros,
        )
    for key in (ADMIN_KEY, CURSOR):
        tx.run(
            "INSERT INTO admin_api_keys (id, organization_id, user_id, name, secret_sha256, created_at)"
            " VALUES (:id, :organization, :user, 'conformance', :sha, :now)"
            " ON CONFLICT (id) DO UPDATE SET revoked_at = NULL",
            id=key,
            organization=organization_id,
            user=owner_id,
            sha=bytes(32),
            now=tx.now_micros,
        )
