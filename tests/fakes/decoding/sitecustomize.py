"""Put on the path of a server, it makes a worker decode and encode bodies on its event loop, as it once did.

The control of tests/chaos/test_three_organizations.py.
"""

import msgspec

from tunewarden.gateway import exchange, rewriting


def _rewritten(
    self: rewriting.InferenceRequest, engine_model: str, *, asks: bool, forbids_store: bool
) -> bytes:
    fields = msgspec.json.decode(self._body)
    return msgspec.json.encode({**fields, "model": engine_model})


rewriting.InferenceRequest._rewritten = _rewritten  # type: ignore[method-assign]  # a worker that works otherwise
exchange.LONG_BYTES = 2**40  # type: ignore[attr-defined]  # a worker that works otherwise
