"""What the OpenAPI document says of the routes of administration."""

from tunewarden.api.administration import schemas
from tunewarden.api.described import Described
from tunewarden.api.schemas import Deleted, Listing

USERS = "/v1/organization/users"
PROJECTS = "/v1/organization/projects"
PROJECT = f"{PROJECTS}/{{project_id}}"
AUDIT = "/v1/organization/audit_logs"
ROUTED = {
    f"GET {AUDIT}": Described("listAuditLogs", Listing[schemas.AuditLog]),
    f"GET {AUDIT}/export": Described("exportAuditLogs", "application/jsonl"),
    f"GET {AUDIT}/retention": Described("retrieveAuditRetention", schemas.AuditRetention),
    f"POST {AUDIT}/retention": Described(
        "updateAuditRetention", schemas.AuditRetention, schemas.NewAuditRetention
    ),
    f"GET {USERS}": Described("listUsers", Listing[schemas.OrganizationUser]),
    f"GET {USERS}/{{user_id}}": Described("retrieveUser", schemas.OrganizationUser),
    f"POST {USERS}/{{user_id}}": Described(
        "modifyUser", schemas.OrganizationUser, schemas.UserChange
    ),
    f"DELETE {USERS}/{{user_id}}": Described("deleteUser", Deleted),
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
}
