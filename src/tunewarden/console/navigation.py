"""What the pages lead to, in order, with what a caller must be allowed to do for each."""

from typing import NamedTuple

from tunewarden.identity.policy import Action


class Entry(NamedTuple):
    """An entry, shown to callers who may do `action`; the page itself authorizes all the same."""

    path: str
    name: str
    action: Action | None = None


NAVIGATION = (
    Entry("/console", "Home"),
    Entry("/console/models", "Models", Action.READ_MODELS),
    Entry("/console/aliases", "Aliases", Action.READ_MODELS),
    Entry("/console/jobs", "Jobs", Action.READ_JOBS),
    Entry("/console/files", "Files", Action.READ_FILES),
    Entry("/console/deletions", "Deletions", Action.READ_DELETIONS),
    Entry("/console/cases", "Cases", Action.READ_DELETIONS),
    Entry("/console/log", "Log", Action.READ_DELETIONS),
    Entry("/console/retention", "Retention", Action.READ_RETENTION),
    Entry("/console/webhooks", "Webhooks", Action.READ_WEBHOOKS),
    Entry("/console/usage", "Usage", Action.READ_SYSTEM),
    Entry("/console/people", "People", Action.READ_SYSTEM),
    Entry("/console/projects", "Projects", Action.READ_SYSTEM),
    Entry("/console/audit", "Audit", Action.READ_SYSTEM),
    Entry("/console/system", "System", Action.READ_SYSTEM),
)
