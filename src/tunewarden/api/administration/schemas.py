"""Types of the bodies of administration, for the OpenAPI document. A test decodes real responses with them."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from tunewarden.api.schemas import Seconds


class UserProject(Struct, forbid_unknown_fields=True):
    """A project that a person is in, and the role there."""

    id: str
    name: str
    role: Literal["owner", "member", "viewer"]


class UserProjects(Struct, forbid_unknown_fields=True):
    """The active projects of a person, 100 at most."""

    object: Literal["list"]
    data: list[UserProject]


class OrganizationUser(Struct, forbid_unknown_fields=True):
    """A person in the organization; one that the operator made with a key has no address."""

    id: str
    object: Literal["organization.user"]
    name: str
    email: str | None
    role: Literal["owner", "reader"]
    added_at: Seconds
    api_key_last_used_at: Seconds | None
    projects: UserProjects
    is_service_account: Literal[False] = False


class Project(Struct, forbid_unknown_fields=True):
    """A project. Requests with the keys of an archived one are refused."""

    id: str
    object: Literal["organization.project"]
    name: str
    created_at: Seconds
    archived_at: Seconds | None
    status: Literal["active", "archived"]
    is_default: bool


class UserChange(Struct):
    """Another role in the organization."""

    role: Literal["owner", "reader"] | None = None


class NewProject(Struct):
    """A project to create."""

    name: str


class ProjectChange(Struct):
    """Another name."""

    name: str | None = None


class ProjectUser(Struct, forbid_unknown_fields=True):
    """A person in a project."""

    id: str
    object: Literal["organization.project.user"]
    name: str
    email: str | None
    role: Literal["owner", "member", "viewer"]
    added_at: Seconds


class NewProjectUser(Struct):
    """A person of the organization to add to a project: by `user_id` or by `email`."""

    role: Literal["owner", "member", "viewer"]
    user_id: str | None = None
    email: str | None = None


class ProjectUserChange(Struct):
    """Another role in the project."""

    role: Literal["owner", "member", "viewer"] | None = None


class AuditLog(Struct):
    """An event. A member with the name of its type holds the id of what it happened to, and details.

    `actor` is null for the server itself, and for a key that was refused.
    """

    id: str
    object: Literal["organization.audit_log"]
    type: str
    effective_at: Seconds
    actor: dict[str, Any] | None
    request_id: str | None
    project: dict[str, str | None] | UnsetType = UNSET


class AuditEntry(Struct, forbid_unknown_fields=True):
    """What a digest keeps of an event: its id, and the hash of its line."""

    id: str
    hash: str


class AuditPathStep(Struct, forbid_unknown_fields=True):
    """A hash on the way from a commitment to the root of a digest, and its side."""

    side: Literal["left", "right"]
    hash: str


class AuditDigest(Struct, forbid_unknown_fields=True):
    """The organization's part of a daily digest. What it commits to, and how: `tunewarden_receipts.audit_digest`.

    `digest` is the number of the digest; `receipt`, null until it is in the log, proves that with `log_key`.
    `hand_overs` proves that key to those who trust an earlier one.
    """

    id: str
    object: Literal["organization.audit_digest"]
    organization_id: str
    number: int
    digest: int
    events: int
    root: str
    previous: str | None
    salt: str
    entries: list[AuditEntry]
    expired_at: Seconds | None
    path: list[AuditPathStep]
    receipt: str | None
    log_key: str
    hand_overs: str


class AuditRetention(Struct, forbid_unknown_fields=True):
    """For how many days audit events are kept; null: for ever."""

    object: Literal["organization.audit_retention"]
    days: int | None


class NewAuditRetention(Struct):
    """For how many days audit events are to be kept, 90 at least; without it, for ever."""

    days: int | None = None


class DeletionSettings(Struct, forbid_unknown_fields=True):
    """For how many minutes after its last use a model is in use, which blocks its deletion; null: use blocks nothing."""

    object: Literal["organization.deletion_settings"]
    in_use_minutes: int | None


class NewDeletionSettings(Struct):
    """For how many minutes after its last use a model is to be in use, 1 to 525600; without it, use blocks nothing."""

    in_use_minutes: int | None = None


class ServiceAccount(Struct, forbid_unknown_fields=True):
    """A service account of a project: a user who is no person, and never an Owner of the organization."""

    id: str
    object: Literal["organization.project.service_account"]
    name: str
    role: Literal["owner", "member", "none"]
    created_at: Seconds


class ServiceAccountKey(Struct, forbid_unknown_fields=True):
    """A new API key of a service account. `value` is shown this once."""

    id: str
    object: Literal["organization.project.service_account.api_key"]
    name: str
    value: str
    created_at: Seconds
    expires_at: Seconds | None


class NewServiceAccount(Struct):
    """A service account to create: with the role `member` and an API key, or with neither."""

    name: str
    create_service_account_only: bool | None = None
    expires_in_seconds: int | None = None


class CreatedServiceAccount(Struct, forbid_unknown_fields=True):
    """A new service account, and the API key that was created with it."""

    id: str
    object: Literal["organization.project.service_account"]
    name: str
    role: Literal["member", "none"]
    created_at: Seconds
    api_key: ServiceAccountKey | None


class ServiceAccountChange(Struct):
    """Another name or role; with the role `none` its API keys may do nothing."""

    name: str | None = None
    role: Literal["owner", "member", "none"] | None = None


class NewServiceAccountKey(Struct):
    """An API key to create. Without `scopes` it is not restricted."""

    name: str | None = None
    scopes: list[str] | None = None
    expires_in_seconds: int | None = None


class PersonOfKey(Struct, forbid_unknown_fields=True):
    """The person whose API key it is, with the role in the project; `email` is empty if the person has none."""

    id: str
    name: str
    email: str
    role: str
    created_at: Seconds


class AccountOfKey(Struct, forbid_unknown_fields=True):
    """The service account whose API key it is, with its role in the project."""

    id: str
    name: str
    role: str
    created_at: Seconds


class OwnerOfKey(Struct, forbid_unknown_fields=True):
    """Whose API key it is."""

    type: Literal["user", "service_account"]
    user: PersonOfKey | UnsetType = UNSET
    service_account: AccountOfKey | UnsetType = UNSET


class OldKey(Struct, forbid_unknown_fields=True):
    """The API key that another one replaces, and when it ends."""

    id: str
    expires_at: Seconds | None


class ProjectKey(Struct, forbid_unknown_fields=True):
    """An API key of a project; `value` is there once, when it is created, and `rotated` if it replaces another one.

    `owner_project_access` says whether its user may do anything in the project; `scopes` are empty for a key that is
    not restricted.
    """

    id: str
    object: Literal["organization.project.api_key"]
    name: str
    redacted_value: str
    created_at: Seconds
    last_used_at: Seconds | None
    expires_at: Seconds | None
    owner: OwnerOfKey
    owner_project_access: Literal["active", "inactive"]
    scopes: list[str]
    value: str | UnsetType = UNSET
    rotated: OldKey | UnsetType = UNSET


class KeyRotation(Struct):
    """For how many seconds the old key stays valid, a day without it; and for how many the new one is."""

    overlap_seconds: int | None = None
    expires_in_seconds: int | None = None


class NewProjectKey(Struct):
    """An API key to create for a person in the project. Without `scopes` it is not restricted."""

    user_id: str
    name: str
    scopes: list[str] | None = None
    expires_in_seconds: int | None = None


class ProjectKeyChange(Struct):
    """Other scopes, of which none are no restriction, or another end, counted from now."""

    scopes: list[str] | None = None
    expires_in_seconds: int | None = None


class OwnerOfAdminKey(Struct, forbid_unknown_fields=True):
    """The Owner whose admin key it is; with another role the key is refused."""

    id: str
    object: Literal["organization.user"]
    type: Literal["user"]
    name: str
    role: str
    created_at: Seconds


class AdminKey(Struct, forbid_unknown_fields=True):
    """An admin key, which only administers; `value` is there once, when it is created."""

    id: str
    object: Literal["organization.admin_api_key"]
    name: str
    redacted_value: str
    created_at: Seconds
    expires_at: Seconds | None
    last_used_at: Seconds | None
    owner: OwnerOfAdminKey
    value: str | UnsetType = UNSET


class NewAdminKey(Struct):
    """An admin key to create, of the user whose admin key asks, or of another Owner: `user_id`."""

    name: str
    user_id: str | None = None
    expires_in_seconds: int | None = None


class ProjectRateLimit(Struct, forbid_unknown_fields=True):
    """What a project may send to a base in a minute, its fine-tunes included; 2147483647 is no limit."""

    id: str
    object: Literal["project.rate_limit"]
    model: str
    max_requests_per_1_minute: int
    max_tokens_per_1_minute: int


class KeyRateLimit(Struct, forbid_unknown_fields=True):
    """What an API key may send in a minute, to all models; 2147483647 is no limit. `id` is the key's."""

    id: str
    object: Literal["organization.project.api_key.rate_limit"]
    max_requests_per_1_minute: int
    max_tokens_per_1_minute: int


class RateLimitChange(Struct):
    """Other limits; what is absent stays."""

    max_requests_per_1_minute: int | None = None
    max_tokens_per_1_minute: int | None = None


class ProjectQuota(Struct, forbid_unknown_fields=True):
    """What a project may have, and has: sealed bytes, files, and models with their checkpoints. `id` is the project's."""

    id: str
    object: Literal["organization.project.quota"]
    max_bytes: int
    max_files: int
    max_models: int
    used_bytes: int
    used_files: int
    used_models: int


class ProjectQuotaChange(Struct):
    """Another quota, at most what the server's settings allow; what is absent stays."""

    max_bytes: int | None = None
    max_files: int | None = None
    max_models: int | None = None
