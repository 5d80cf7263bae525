"""Put on the path of a server, it makes a worker decode and encode bodies on its event loop, as it once did.

The control of tests/chaos/test_three_organizations.py.
"""

import msgspec

from tunewarden.gateway import exchange, inference_request


def _rewritten(
    self: inference_request.InferenceRequest, engine_model: str, *, asks: bool, forbids_store: bool
) -> bytes:
    fields = msgspec.json.decode(self._body)
    return msgspec.json.encode({**fields, "model": engine_model})


inference_request.InferenceRequest._rewritten = _rewritten  # type: ignore[method-assign]  # a worker that works otherwise
exchange.LONG_BYTES = 2**40  # type: ignore[attr-defined]  # a worker that works otherwise
