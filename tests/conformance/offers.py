"""Which of the suite's tests are run, and which of them ask for what is not offered. The list only shrinks."""

import re
from dataclasses import dataclass

# Every call but those that the client itself refuses, because an id is empty.
ADMIN = "admin/organization"
CALLS = r"test_(method|raw_response|streaming_response)"


@dataclass(frozen=True, slots=True)
class Set:
    """One row of the table: what it is called, and its files and folders in the suite."""

    name: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotOffered:
    """Tests that cannot pass, and why; `tests` is matched at the beginning of `file::Class::name`."""

    tests: str
    why: str

    def covers(self, test: str) -> bool:
        return re.match(self.tests, test) is not None


SETS = (
    Set("models", ("test_models.py",)),
    Set("fine-tuning jobs", ("fine_tuning/test_jobs.py",)),
    Set("checkpoints of jobs", ("fine_tuning/jobs",)),
    Set("permissions of checkpoints", ("fine_tuning/checkpoints",)),
    Set("graders (alpha)", ("fine_tuning/alpha",)),
    Set("files", ("test_files.py",)),
    Set("uploads", ("test_uploads.py", "uploads")),
    Set("chat completions", ("chat",)),
    Set("completions", ("test_completions.py",)),
    Set("responses", ("test_responses.py", "responses")),
    Set("users of the organization", (f"{ADMIN}/test_users.py",)),
    Set("invites", (f"{ADMIN}/test_invites.py",)),
    Set("projects", (f"{ADMIN}/test_projects.py",)),
    Set("users of projects", (f"{ADMIN}/projects/test_users.py",)),
    Set(
        "service accounts",
        (
            "admin/organization/projects/test_service_accounts.py",
            "admin/organization/projects/service_accounts",
        ),
    ),
    Set("API keys of projects", ("admin/organization/projects/test_api_keys.py",)),
    Set("admin keys", ("admin/organization/test_admin_api_keys.py",)),
    Set("usage", ("admin/organization/test_usage.py",)),
    Set("audit logs", (f"{ADMIN}/test_audit_logs.py",)),
    Set("rate limits of projects", (f"{ADMIN}/projects/test_rate_limits.py",)),
    Set("webhooks", ("test_webhooks.py", "webhooks")),
)
# Files and folders of administration that are no set: all of their operations answer 404 `not_offered`.
LEFT_OUT = {
    f"{ADMIN}/{name}": why
    for names, why in (
        (("groups", "test_groups.py", "projects/groups", "projects/test_groups.py"), "groups"),
        (
            (
                "test_roles.py",
                "users/test_roles.py",
                "projects/test_roles.py",
                "projects/users/test_roles.py",
            ),
            "custom roles",
        ),
        (("test_certificates.py", "projects/test_certificates.py"), "client certificates"),
        (("test_data_retention.py", "projects/test_data_retention.py"), "settings of retention"),
        (("test_external_keys.py", "test_external_storage.py"), "customers' keys and storage"),
        (
            ("test_workload_identity_providers.py", "workload_identity_providers"),
            "workload identity",
        ),
        (
            (
                "test_spend_alerts.py",
                "test_spend_limit.py",
                "projects/test_spend_alerts.py",
                "projects/test_spend_limit.py",
            ),
            "spend: nothing has a price",
        ),
        (("projects/test_hosted_tool_permissions.py",), "hosted tools"),
        (("projects/test_model_permissions.py",), "lists of permitted models"),
        (("projects/test_service_tier_settings.py",), "service tiers"),
    )
    for name in names
}
NOT_OFFERED = (
    NotOffered(
        rf"test_webhooks\.py::\w+::({CALLS}_(create|test)|test_method_update_with_all_params)\[",
        '`url="https://"`, which has no host, and events of batches, which this server does not have',
    ),
    NotOffered(
        r"admin/organization/test_usage\.py::\w+::test_method_(completions|embeddings)_with_all_params\[",
        '`page="page"`, which is the cursor of no report and is refused',
    ),
    NotOffered(
        rf"admin/organization/test_usage\.py::\w+::{CALLS}_(audio_|code_|costs|decisions|file_|images|moderations|vector_|web_)",
        "costs, and usage of what this server does not do: images, audio, moderations, vector stores, tools",
    ),
    NotOffered(
        r"admin/organization/projects/test_service_accounts\.py::\w+::test_method_create_with_all_params\[",
        "a service account without a key whose key expires, which OpenAI's API does not allow either",
    ),
    NotOffered(
        r"admin/organization/projects/service_accounts/test_api_keys\.py::\w+::test_method_create_with_all_params\[",
        '`scopes=["string"]`, which is no scope and is refused',
    ),
    NotOffered(
        r"fine_tuning/test_jobs\.py::\w+::test_method_create_with_all_params\[",
        "`jobs.create` with a wandb integration, which is refused",
    ),
    NotOffered(
        rf"fine_tuning/alpha/test_graders\.py::\w+::{CALLS}_(run|validate)",
        "graders, as all of reinforcement fine-tuning",
    ),
    NotOffered(
        rf"test_files\.py::\w+::{CALLS}_content\[aiohttp\]",
        "the suite itself skips `content` on aiohttp",
    ),
    NotOffered(
        r"test_uploads\.py::\w+::test_method_complete_with_all_params\[",
        '`uploads.complete` with `md5="md5"`, which is no checksum and is refused',
    ),
    NotOffered(
        rf"chat/test_completions\.py::\w+::{CALLS}_(retrieve|update|list|list_with_all_params|delete)\[",
        "stored completions: retrieve, update, list, delete",
    ),
    NotOffered(
        rf"chat/completions/test_messages\.py::\w+::{CALLS}_list",
        "messages of stored completions",
    ),
    NotOffered(
        rf"test_responses\.py::\w+::{CALLS}_create_overload_\d\[",
        "`responses.create` without model and input",
    ),
    NotOffered(
        rf"test_responses\.py::\w+::{CALLS}_(retrieve|delete|cancel)",
        "stored responses: retrieve, cancel, delete, items",
    ),
    NotOffered(
        rf"responses/test_input_items\.py::\w+::{CALLS}_list",
        "stored responses: retrieve, cancel, delete, items",
    ),
    NotOffered(rf"test_responses\.py::\w+::{CALLS}_compact", "compaction"),
    NotOffered(
        rf"responses/test_input_tokens\.py::\w+::{CALLS}_count",
        "counts of tokens without a response",
    ),
    NotOffered(
        rf"{ADMIN}/test_users\.py::\w+::test_method_update_with_all_params\[",
        '`users.update` with `role="role"`, which is none',
    ),
    NotOffered(
        rf"{ADMIN}/test_invites\.py::\w+::{CALLS}_create",
        '`invites.create` with `email="email"`, which is no address',
    ),
    NotOffered(
        rf"{ADMIN}/test_projects\.py::\w+::test_method_(create|update)_with_all_params\[",
        "`projects.create` and `update` with a region and an external key, which are refused",
    ),
    NotOffered(
        rf"{ADMIN}/projects/test_rate_limits\.py::\w+::test_method_update_rate_limit_with_all_params\[",
        "limits of a day, of images, audio and batches, which are refused",
    ),
    NotOffered(
        rf"{ADMIN}/projects/test_users\.py::\w+::({CALLS}_create|test_method_update_with_all_params\[)",
        '`projects.users.create` and `update` with `role="role"`, which is none',
    ),
)


def reason(test: str) -> str | None:
    """Why a test is not expected to pass, or None."""
    return next((one.why for one in NOT_OFFERED if one.covers(test)), None)


def set_of(test: str) -> Set:
    """The set that a test belongs to."""
    return next(
        one for one in SETS if any(re.match(rf"{re.escape(file)}[/:]", test) for file in one.files)
    )
