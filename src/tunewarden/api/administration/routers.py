"""The routes of administration."""

from tunewarden.api.administration import (
    admin_api_keys,
    api_keys,
    audit_logs,
    deletion_settings,
    invites,
    limits,
    project_users,
    projects,
    service_accounts,
    usage,
    users,
)

PREFIXES = ("/v1/organization/", "/v1/projects/")  # what only admin keys may ask
ROUTERS = tuple(
    room.routes
    for room in (
        users,
        invites,
        projects,
        project_users,
        service_accounts,
        api_keys,
        admin_api_keys,
        audit_logs,
        deletion_settings,
        usage,
        limits,
    )
)
