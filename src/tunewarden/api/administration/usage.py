"""`/v1/organization/usage`: reports of completions (chats and responses too) and of embeddings."""

import base64
import binascii
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request

from tunewarden import ids
from tunewarden.api.administration import usage_schemas as schemas
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InAdministration
from tunewarden.errors import Error, Kind
from tunewarden.registry import usage_reports
from tunewarden.registry.usage import COMPLETIONS, DAY, EMBEDDINGS, HOUR, MINUTE, KindOfRequest
from tunewarden.registry.usage_reports import COLUMNS, Group, Page

routes = APIRouter(prefix="/v1/organization/usage")

# By the name of the width: seconds, and how many buckets a page has and may have.
WIDTHS = {"1m": (MINUTE, 60, 1440), "1h": (HOUR, 24, 168), "1d": (DAY, 7, 31)}
# The end of the year 9999.
TIME_MAX = 253_402_300_799
VALUES_MAX = 100
# The parameters that list what is counted, and their columns.
FILTERS = {
    "project_ids": "project_id",
    "user_ids": "user_id",
    "api_key_ids": "api_key_id",
    "models": "model",
}
# Each request has the same of these: there are no batches, no tiers and no agents.
ALIKE = ("batch", "service_tier", "api_source")
CURSOR = struct.Struct(">QQ")  # where the next page begins, and where the report ends
CURSOR_PREFIX = "page_"

Time = Annotated[int, Query(ge=0, le=TIME_MAX, description="Unix seconds")]


@dataclass(frozen=True, slots=True)
class _Range:
    """The time of a report and its buckets."""

    start_time: int
    end_time: int | None
    bucket_width: Literal["1m", "1h", "1d"]
    limit: int | None
    page: str | None


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is counted, and what the counts are grouped by."""

    only: dict[str, tuple[str, ...]]
    grouped_by: tuple[str, ...]


async def _range(
    start_time: Time,
    end_time: Time | None = None,
    bucket_width: Literal["1m", "1h", "1d"] = "1d",
    limit: Annotated[int | None, Query(ge=1)] = None,
    page: str | None = None,
) -> _Range:
    return _Range(start_time, end_time, bucket_width, limit, page)


async def _choice(request: Request) -> _Choice:
    found = {name: _values(request, name) for name in (*FILTERS, "group_by")}
    only = {column: found[name] for name, column in FILTERS.items() if found[name]}
    return _Choice(only, found["group_by"])


InRange = Annotated[_Range, Depends(_range)]
Chosen = Annotated[_Choice, Depends(_choice)]


@routes.get("/completions")
def report_completions(
    context: InAdministration,
    asked: InRange,
    choice: Chosen,
    *,
    batch: bool | None = None,
) -> JsonAnswer:
    """Report the usage of chats, completions and responses."""
    _check_groups(choice, (*COLUMNS, *ALIKE))
    grouped_by = choice.grouped_by

    def shown(group: Group) -> schemas.CompletionsUsage:
        counts = group.counts
        return schemas.CompletionsUsage(
            object="organization.usage.completions.result",
            num_model_requests=counts.requests,
            input_tokens=counts.input_tokens,
            input_cached_tokens=counts.cached_tokens,
            input_uncached_tokens=counts.input_tokens - counts.cached_tokens,
            output_tokens=counts.output_tokens,
            project_id=group.project_id,
            user_id=group.user_id,
            api_key_id=group.api_key_id,
            model=group.model,
            batch=False if "batch" in grouped_by else None,
            service_tier="default" if "service_tier" in grouped_by else None,
            api_source="unlabeled" if "api_source" in grouped_by else None,
        )

    return _answer(
        _report(context, COMPLETIONS, asked, choice), asked, shown, is_none=batch is True
    )


@routes.get("/embeddings")
def report_embeddings(context: InAdministration, asked: InRange, choice: Chosen) -> JsonAnswer:
    """Report the usage of embeddings."""
    _check_groups(choice, tuple(COLUMNS))

    def shown(group: Group) -> schemas.EmbeddingsUsage:
        return schemas.EmbeddingsUsage(
            object="organization.usage.embeddings.result",
            num_model_requests=group.counts.requests,
            input_tokens=group.counts.input_tokens,
            project_id=group.project_id,
            user_id=group.user_id,
            api_key_id=group.api_key_id,
            model=group.model,
        )

    return _answer(_report(context, EMBEDDINGS, asked, choice), asked, shown)


def _report(context: InAdministration, kind: KindOfRequest, asked: _Range, choice: _Choice) -> Page:
    seconds, size, size_max = WIDTHS[asked.bucket_width]
    if asked.limit is not None and asked.limit > size_max:
        said = f"with bucket_width '{asked.bucket_width}' it must be 1 to {size_max}."
        raise _invalid("limit", said)
    if asked.end_time is not None and asked.end_time <= asked.start_time:
        raise _invalid("end_time", "it must be later than start_time.")
    begin, end = asked.start_time, asked.end_time
    if asked.page is not None:
        begin, end = _position(asked.page, asked, seconds)
    query = usage_reports.Query(
        kind=kind,
        seconds=seconds,
        begin=begin,
        end=end,
        limit=asked.limit or size,
        grouped_by=frozenset(choice.grouped_by) & COLUMNS.keys(),
        only=choice.only,
    )
    return usage_reports.report(context.operations.database, context.administrator, query)


def _answer(
    page: Page,
    asked: _Range,
    shown: Callable[[Group], schemas.UsageResult],
    *,
    is_none: bool = False,
) -> JsonAnswer:
    seconds, *_ = WIDTHS[asked.bucket_width]
    buckets: list[schemas.UsageBucket[schemas.UsageResult]] = [
        schemas.UsageBucket(
            object="bucket",
            start_time=begin,
            end_time=begin + seconds,
            results=[] if is_none else [shown(group) for group in groups],
        )
        for begin, groups in page.buckets.items()
    ]
    following = None if page.next_begin is None else _cursor(page.next_begin, page.end)
    return JsonAnswer(
        schemas.UsagePage("page", buckets, has_more=following is not None, next_page=following)
    )


def _cursor(begin: int, end: int) -> str:
    return CURSOR_PREFIX + base64.urlsafe_b64encode(CURSOR.pack(begin, end)).decode()


def _position(page: str, asked: _Range, seconds: int) -> tuple[int, int]:
    """Return begin and end that a cursor stands for. Raises Error(INVALID)."""
    try:
        text = page.removeprefix(CURSOR_PREFIX).encode()
        begin, end = CURSOR.unpack(base64.b64decode(text, altchars=b"-_", validate=True))
    except (binascii.Error, struct.error) as error:
        raise _invalid_page(page) from error
    is_ours = begin % seconds == 0 and asked.start_time < begin < end
    if not is_ours or end > (TIME_MAX if asked.end_time is None else asked.end_time):
        raise _invalid_page(page)
    return begin, end


def _values(request: Request, name: str) -> tuple[str, ...]:
    query = request.query_params
    found = tuple(dict.fromkeys([*query.getlist(f"{name}[]"), *query.getlist(name)]))
    if len(found) > VALUES_MAX:
        raise _invalid(name, f"at most {VALUES_MAX} values are possible.")
    return found


def _check_groups(choice: _Choice, allowed: tuple[str, ...]) -> None:
    for name in choice.grouped_by:
        if name not in allowed:
            said = f"'{ids.shown(name)}' is none of {', '.join(allowed)}."
            raise _invalid("group_by", said)


def _invalid_page(page: str) -> Error:
    return _invalid("page", f"'{ids.shown(page)}' is not the next_page of this report.")


def _invalid(param: str, said: str) -> Error:
    message = f"Invalid value for '{param}': {said}"
    return Error(Kind.INVALID, message, param=param, code="invalid_value")
