"""The paths of an engine's API, and our one header.

| method | path | body | answer |
|---|---|---|---|
| POST | `CHAT_COMPLETIONS`, `COMPLETIONS` | OpenAI's | OpenAI's |
| GET | `HEALTH` | - | 200 once the process listens |
| GET | `STATE` | - | `State` |
| POST | `BASES` | `NewBase` | `LoadedBase` |
| POST | `ADAPTERS` | `NewAdapter` | `LoadedAdapter` |
| POST | `EVICTIONS` | `EvictionRequest` | `EvictionAnswer` |
| POST | `abort_path(name)` | - | `AbortAnswer` |

The messages are in `messages.py`. Any status but 200 has a `Refusal` with a code from `codes.py`.
"""

import re
from typing import Final
from urllib.parse import quote, unquote

# The suffix of an OpenAI-compatible engine's URL, and the prefix of each inference route.
OPENAI: Final = "/v1"
CHAT_COMPLETIONS: Final = f"{OPENAI}/chat/completions"
COMPLETIONS: Final = f"{OPENAI}/completions"

HEALTH: Final = "/health"

STATE: Final = "/engine/state"
BASES: Final = "/engine/bases"
ADAPTERS: Final = "/engine/adapters"
EVICTIONS: Final = "/engine/evictions"

# Header of an inference request: the id of the caller's organization. An engine reuses cached prefixes only within
# an organization, and shares its rows fairly between organizations.
ASKED_BY: Final = b"tunewarden-asked-by"

_ABORT = re.compile(rf"{ADAPTERS}/([^/]+)/abort")


def abort_path(name: str) -> str:
    """Return the path that aborts the requests of an adapter, which stays loaded."""
    return f"{ADAPTERS}/{quote(name, safe='')}/abort"


def name_in_abort_path(path: str) -> str | None:
    """Return the name of the adapter whose requests a path aborts, None if it is no such path."""
    found = _ABORT.fullmatch(path)
    return found and unquote(found[1])
