"""What the OpenAPI document says of the routes of administration."""

from tunewarden.api.administration import schemas
from tunewarden.api.described import Described
from tunewarden.api.schemas import Listing

USERS = "/v1/organization/users"
PROJECTS = "/v1/organization/projects"
PROJECT = f"{PROJECTS}/{{project_id}}"
ROUTED = {
    f"GET {USERS}": Described("listUsers", Listing[schemas.OrganizationUser]),
    f"GET {USERS}/{{user_id}}": Described("retrieveUser", schemas.OrganizationUser),
    f"GET {PROJECTS}": Described("listProjects", Listing[schemas.Project]),
    f"POST {PROJECTS}": Described("createProject", schemas.Project, schemas.NewProject),
    f"GET {PROJECT}": Described("retrieveProject", schemas.Project),
    f"GET {PROJECT}/users": Described("listProjectUsers", Listing[schemas.ProjectUser]),
}
