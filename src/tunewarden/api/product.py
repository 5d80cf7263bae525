"""The response header that identifies a Tunewarden server. It needs no key: refusals carry it too.

Commands check for it before they send a key, so that a key never goes to another kind of server.
"""

# On every response except those of the inference routes and of refused connections.
PRODUCT = (b"tunewarden-api", b"v1")
