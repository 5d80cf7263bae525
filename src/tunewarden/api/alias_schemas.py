"""Types of request and response bodies, for the OpenAPI document: aliases. See `schemas`."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from tunewarden.api.schemas import Seconds

# What a database holds.
VERSION_MAX = 2**53


class NewAliasTarget(Struct, forbid_unknown_fields=True):
    """A model that an alias points to. Its share of the requests is its weight, of the sum of all."""

    model: str
    weight: int = 1


class AliasChange(Struct, forbid_unknown_fields=True):
    """What an alias points to: one `model`, or several `targets`; or `rollback`, to its version before or to `version`."""

    model: str | None = None
    targets: list[NewAliasTarget] | None = None
    rollback: bool | None = None
    version: Annotated[int, Meta(ge=1, le=VERSION_MAX)] | None = None


class NewAlias(Struct, forbid_unknown_fields=True):
    """A new alias: its `name`, and one `model` or several `targets`."""

    name: str
    model: str | None = None
    targets: list[NewAliasTarget] | None = None


class AliasTarget(Struct, forbid_unknown_fields=True):
    """A model that an alias points to."""

    model: str
    weight: int


class AliasVersion(Struct, forbid_unknown_fields=True):
    """What an alias pointed to since `changed_at`."""

    version: int
    targets: list[AliasTarget]
    changed_by: str
    changed_at: Seconds


class Alias(Struct, forbid_unknown_fields=True):
    """An alias; `history` (newest first) where one is retrieved. `id` is its name."""

    id: str
    object: Literal["alias"]
    name: str
    created_at: Seconds
    version: int
    targets: list[AliasTarget]
    changed_by: str
    changed_at: Seconds
    history: list[AliasVersion] | UnsetType = UNSET
