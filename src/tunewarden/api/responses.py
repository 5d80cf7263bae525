"""`/v1/responses/…`: what concerns stored responses. None is stored; `gateway/inference.py` creates them."""

from fastapi import APIRouter

from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InContext, Segment
from tunewarden.errors import Error, Kind
from tunewarden.ids import shown

routes = APIRouter(prefix="/v1/responses")


@routes.get("/{response_id}")
@routes.delete("/{response_id}")
@routes.post("/{response_id}/cancel")
@routes.get("/{response_id}/input_items")
def refuse_stored_response(_: InContext, response_id: Segment) -> JsonAnswer:
    """Refuse: responses are not stored."""
    raise Error(
        Kind.NOT_FOUND,
        f"Response with id '{shown(response_id)}' not found. Responses are not stored: keep what v1/responses answers,"
        " and send the conversation in 'input'.",
    )


@routes.post("/compact")
def refuse_compaction(_: InContext) -> JsonAnswer:
    """Refuse: conversations are not compacted."""
    raise Error(Kind.NOT_FOUND, "Compaction is not supported by this server. Shorten 'input'.")


@routes.post("/input_tokens")
def refuse_token_count(_: InContext) -> JsonAnswer:
    """Refuse: tokens are counted with the response only."""
    raise Error(
        Kind.NOT_FOUND,
        "Counting tokens without a response is not supported by this server. `usage` of v1/responses tells them.",
    )
