"""Seals all endpoints' details under another key, when the log's key, which theirs follows from, is rotated."""

from collections.abc import Callable

from tunewarden.db.database import Tx
from tunewarden.webhooks import endpoint_rows
from tunewarden.webhooks.details import Sealer


def reseal(tx: Tx, former: Callable[[bytes], bytes], new: Callable[[bytes], bytes]) -> None:
    """Seal every endpoint's details anew, in the caller's transaction; what the former key cannot open is left."""
    before, after = Sealer(former), Sealer(new)
    first = 0
    while page := endpoint_rows.sealed_after(tx, first):
        for n, endpoint_id, sealed in page:
            details = before.open_if_possible(endpoint_id, sealed)
            if details is not None:
                endpoint_rows.reseal(tx, n, after.seal(endpoint_id, details))
        first = page[-1][0]
