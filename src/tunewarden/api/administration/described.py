"""What the OpenAPI document says of the routes of administration."""

from tunewarden.api.administration import invite_schemas, schemas, usage_described
from tunewarden.api.described import Described
from tunewarden.api.json_lines import JSON_LINES
from tunewarden.api.schemas import Deleted, Listing

USERS = "/v1/organization/users"
INVITES = "/v1/organization/invites"
PROJECTS = "/v1/organization/projects"
PROJECT = f"{PROJECTS}/{{project_id}}"
AUDIT = "/v1/organization/audit_logs"
ACCOUNTS = f"{PROJECT}/service_accounts"
ACCOUNT = f"{ACCOUNTS}/{{service_account_id}}"
KEYS = f"{PROJECT}/api_keys"
KEY = f"{KEYS}/{{api_key_id}}"
ADMIN_KEYS = "/v1/organization/admin_api_keys"
ROUTED = {
    f"GET {AUDIT}": Described("listAuditLogs", Listing[schemas.AuditLog]),
    f"GET {AUDIT}/export": Described("exportAuditLogs", JSON_LINES),
    f"GET {AUDIT}/digests/{{number}}": Described("retrieveAuditDigest", schemas.AuditDigest),
    f"GET {AUDIT}/digests/{{number}}/events": Described("exportDigestedAuditLogs", JSON_LINES),
    f"GET {AUDIT}/retention": Described("retrieveAuditRetention", schemas.AuditRetention),
    f"POST {AUDIT}/retention": Described(
        "updateAuditRetention", schemas.AuditRetention, schemas.NewAuditRetention
    ),
    "GET /v1/organization/deletion_settings": Described(
        "retrieveDeletionSettings", schemas.DeletionSettings
    ),
    "POST /v1/organization/deletion_settings": Described(
        "updateDeletionSettings", schemas.DeletionSettings, schemas.NewDeletionSettings
    ),
    f"GET {USERS}": Described("listUsers", Listing[schemas.OrganizationUser]),
    f"GET {USERS}/{{user_id}}": Described("retrieveUser", schemas.OrganizationUser),
    f"POST {USERS}/{{user_id}}": Described(
        "modifyUser", schemas.OrganizationUser, schemas.UserChange
    ),
    f"DELETE {USERS}/{{user_id}}": Described("deleteUser", Deleted),
    f"GET {INVITES}": Described("listInvites", Listing[invite_schemas.Invite]),
    f"POST {INVITES}": Described("inviteUser", invite_schemas.Invite, invite_schemas.NewInvite),
    f"GET {INVITES}/{{invite_id}}": Described("retrieveInvite", invite_schemas.Invite),
    f"DELETE {INVITES}/{{invite_id}}": Described("deleteInvite", Deleted),
    f"GET {PROJECTS}": Described("listProjects", Listing[schemas.Project]),
    f"POST {PROJECTS}": Described("createProject", schemas.Project, schemas.NewProject),
    f"GET {PROJECT}": Described("retrieveProject", schemas.Project),
    f"POST {PROJECT}": Described("modifyProject", schemas.Project, schemas.ProjectChange),
    f"POST {PROJECT}/archive": Described("archiveProject", schemas.Project),
    f"GET {PROJECT}/users": Described("listProjectUsers", Listing[schemas.ProjectUser]),
    f"POST {PROJECT}/users": Described(
        "createProjectUser", schemas.ProjectUser, schemas.NewProjectUser
    ),
    f"GET {PROJECT}/users/{{user_id}}": Described("retrieveProjectUser", schemas.ProjectUser),
    f"POST {PROJECT}/users/{{user_id}}": Described(
        "modifyProjectUser", schemas.ProjectUser, schemas.ProjectUserChange
    ),
    f"DELETE {PROJECT}/users/{{user_id}}": Described("deleteProjectUser", Deleted),
    f"GET {ACCOUNTS}": Described("listProjectServiceAccounts", Listing[schemas.ServiceAccount]),
    f"POST {ACCOUNTS}": Described(
        "createProjectServiceAccount", schemas.CreatedServiceAccount, schemas.NewServiceAccount
    ),
    f"GET {ACCOUNT}": Described("retrieveProjectServiceAccount", schemas.ServiceAccount),
    f"POST {ACCOUNT}": Described(
        "modifyProjectServiceAccount", schemas.ServiceAccount, schemas.ServiceAccountChange
    ),
    f"DELETE {ACCOUNT}": Described("deleteProjectServiceAccount", Deleted),
    f"POST {ACCOUNT}/api_keys": Described(
        "createServiceAccountKey", schemas.ServiceAccountKey, schemas.NewServiceAccountKey
    ),
    f"GET {KEYS}": Described("listProjectKeys", Listing[schemas.ProjectKey]),
    f"POST {KEYS}": Described("createProjectKey", schemas.ProjectKey, schemas.NewProjectKey),
    f"GET {KEY}": Described("retrieveProjectKey", schemas.ProjectKey),
    f"POST {KEY}": Described("modifyProjectKey", schemas.ProjectKey, schemas.ProjectKeyChange),
    f"POST {KEY}/rotate": Described("rotateProjectKey", schemas.ProjectKey, schemas.KeyRotation),
    f"DELETE {KEY}": Described("deleteProjectKey", Deleted),
    f"GET {PROJECT}/rate_limits": Described(
        "listProjectRateLimits", Listing[schemas.ProjectRateLimit]
    ),
    f"POST {PROJECT}/rate_limits/{{rate_limit_id}}": Described(
        "updateProjectRateLimits", schemas.ProjectRateLimit, schemas.RateLimitChange
    ),
    f"GET {KEY}/rate_limit": Described("retrieveProjectKeyRateLimit", schemas.KeyRateLimit),
    f"POST {KEY}/rate_limit": Described(
        "modifyProjectKeyRateLimit", schemas.KeyRateLimit, schemas.RateLimitChange
    ),
    f"GET {PROJECT}/quota": Described("retrieveProjectQuota", schemas.ProjectQuota),
    f"POST {PROJECT}/quota": Described(
        "modifyProjectQuota", schemas.ProjectQuota, schemas.ProjectQuotaChange
    ),
    f"GET {ADMIN_KEYS}": Described("listAdminKeys", Listing[schemas.AdminKey]),
    f"POST {ADMIN_KEYS}": Described("createAdminKey", schemas.AdminKey, schemas.NewAdminKey),
    f"GET {ADMIN_KEYS}/{{key_id}}": Described("retrieveAdminKey", schemas.AdminKey),
    f"DELETE {ADMIN_KEYS}/{{key_id}}": Described("deleteAdminKey", Deleted),
    **usage_described.ROUTED,
}
