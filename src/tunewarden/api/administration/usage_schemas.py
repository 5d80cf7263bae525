"""Types of reports of usage, for the OpenAPI document. A test decodes real responses with them."""

from typing import Generic, Literal, TypeVar

from msgspec import Struct

from tunewarden.api.schemas import Seconds


class CompletionsUsage(Struct, forbid_unknown_fields=True):
    """Usage of chats, completions and responses; a field that the report is not grouped by is null.

    `input_tokens` include `input_cached_tokens`, which an engine found in its prefix cache.
    """

    object: Literal["organization.usage.completions.result"]
    num_model_requests: int
    input_tokens: int
    input_cached_tokens: int
    input_uncached_tokens: int
    output_tokens: int
    project_id: str | None = None
    user_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    batch: bool | None = None
    service_tier: str | None = None
    api_source: str | None = None


class EmbeddingsUsage(Struct, forbid_unknown_fields=True):
    """Usage of embeddings; a field that the report is not grouped by is null."""

    object: Literal["organization.usage.embeddings.result"]
    num_model_requests: int
    input_tokens: int
    project_id: str | None = None
    user_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None


UsageResult = CompletionsUsage | EmbeddingsUsage
Result = TypeVar("Result")


class UsageBucket(Struct, Generic[Result], forbid_unknown_fields=True):
    """Usage in a minute, an hour or a day (UTC): a result for each group, none if nothing was used."""

    object: Literal["bucket"]
    start_time: Seconds
    end_time: Seconds
    results: list[Result]


class UsagePage(Struct, Generic[Result], forbid_unknown_fields=True):
    """A page of a report; `page` with `next_page` asks for the next."""

    object: Literal["page"]
    data: list[UsageBucket[Result]]
    has_more: bool
    next_page: str | None
