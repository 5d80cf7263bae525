"""What OpenAI's administration has and this server does not: each path is answered 404, and told why."""

import re
from dataclasses import dataclass

from tunewarden.errors import Error, Kind

_PROJECT = r"/organization/projects/[^/]+"


@dataclass(frozen=True, slots=True)
class NotOffered:
    """Paths below /v1, and what they are, as the beginning of a sentence."""

    paths: re.Pattern[str]
    what: str
    instead: str


def _row(paths: str, what: str, instead: str) -> NotOffered:
    return NotOffered(re.compile(f"/v1{paths}(?:/.*)?", re.DOTALL), what, instead)


ROLES = "Users have a role in the organization (owner, reader) and one in each project (owner, member, viewer)."
TABLE = (
    _row("/organization/groups", "Groups", ROLES),
    _row(f"{_PROJECT}/groups", "Groups", ROLES),
    _row("/projects/[^/]+/groups/[^/]+/roles", "Custom roles", ROLES),
    _row("/projects/[^/]+/users/[^/]+/roles", "Custom roles", ROLES),
    _row("/projects/[^/]+/roles", "Custom roles", ROLES),
    _row("/organization/roles", "Custom roles", ROLES),
    _row("/organization/users/[^/]+/roles", "Custom roles", ROLES),
    _row(
        f"(?:/organization|{_PROJECT})/certificates",
        "Client certificates",
        "A proxy in front of the server can check them.",
    ),
    _row(
        f"(?:/organization|{_PROJECT})/data_retention",
        "Settings of data retention",
        "Prompts and answers are never stored; models and files are kept until they are deleted or expire.",
    ),
    _row(
        "/organization/external_keys",
        "Customer-managed keys",
        "Each model and file has a key of its own, which its deletion erases.",
    ),
    _row("/organization/external_storage", "External storage", "Bytes are in the data directory."),
    _row(
        "/organization/workload_identity_providers",
        "Workload identity providers",
        "Use an API key of a service account.",
    ),
    _row(
        f"(?:/organization|{_PROJECT})/spend_(?:alerts|limit)",
        "Spend limits and alerts",
        "Nothing has a price here. Limit requests and tokens by the project's rate limits.",
    ),
    _row("/organization/costs", "Costs", "Nothing has a price here; usage counts tokens."),
    _row(
        f"{_PROJECT}/hosted_tool_permissions",
        "Hosted tools",
        "This server has no tools of its own.",
    ),
    _row(
        f"{_PROJECT}/model_permissions",
        "Lists of permitted models",
        "A project's keys use bases, its own models, and those that are shared with it.",
    ),
    _row(f"{_PROJECT}/service_tier_settings", "Service tiers", "All requests are served alike."),
    _row(
        "/organization/usage/(?:audio_speeches|audio_transcriptions|code_interpreter_sessions|decisions"
        "|file_search_calls|images|moderations|vector_stores|web_search_calls)",
        "This kind of usage",
        "The server serves text: see usage.completions and usage.embeddings.",
    ),
)


def refusal(path: str) -> Error | None:
    """Return the error for a path that is no route, if OpenAI's administration has it."""
    for row in TABLE:
        if row.paths.fullmatch(path):
            verb = "is" if row.what in _SINGULAR else "are"
            message = f"{row.what} {verb} not offered by this server. {row.instead}"
            return Error(Kind.NOT_FOUND, message, code="not_offered")
    return None


_SINGULAR = frozenset(
    {
        "External storage",
        "This kind of usage",
    }
)
