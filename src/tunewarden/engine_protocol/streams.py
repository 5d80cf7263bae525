"""The event that ends a stream of the Responses API with an error."""

import msgspec

from tunewarden.engine_protocol.messages import Refusal


def response_error_event(refusal: Refusal, sequence_number: int) -> bytes:
    """Return the event `error`.

    OpenAI describes it with the error's fields, and its service sends the error as an object: SDKs raise for that.
    """
    error = refusal.error
    fields = {
        "type": "error",
        "sequence_number": sequence_number,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "error": error,
    }
    return b"event: error\ndata: " + msgspec.json.encode(fields) + b"\n\n"
