"""The routes of administration."""

from tunewarden.api.administration import audit_logs, project_users, projects, users

PREFIXES = ("/v1/organization/", "/v1/projects/")  # what only admin keys may ask
ROUTERS = tuple(room.routes for room in (users, projects, project_users, audit_logs))
