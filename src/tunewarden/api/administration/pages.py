"""Pages of the lists of administration: all are newest first, and `after` is the id of the last object seen."""

from typing import Annotated

from fastapi import Query

LIMIT_MAX = 100
# The SDK's own tests ask for 0.
Limit = Annotated[int, Query(ge=0, le=LIMIT_MAX)]
LIMIT = 20
