"""The paths of an engine's API, and our one header.

| method | path | body | answer |
|---|---|---|---|
| POST | `CHAT_COMPLETIONS`, `COMPLETIONS`, `RESPONSES` | OpenAI's | OpenAI's |
| GET | `HEALTH` | - | 200 once the process listens |
| GET | `STATE` | - | `State` |
| POST | `BASES` | `NewBase` | `LoadedBase` |
| POST | `ADAPTERS` | `NewAdapter` | `LoadedAdapter` |
| PUT | `push_path(name, base, member)` | the adapter's two files: `messages.push_head` | `LoadedAdapter` |
| POST | `EVICTIONS` | `EvictionRequest` | `EvictionAnswer` |
| POST | `LEASE` | `Renewal` | `Renewed` |
| POST | `abort_path(name)` | - | `AbortAnswer` |

An adapter is loaded by POST where the engine can read the gateway's files, and else by PUT; an engine offers one of the
two. One that adapters are pushed to uses them only while it has a lease, and takes a push only for the lease that it has. The messages are in `messages.py`. Any status but 200 has a `Refusal` with a code from `codes.py`.
"""

import re
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlencode

# The suffix of an OpenAI-compatible engine's URL, and the prefix of each inference route.
OPENAI: Final = "/v1"
CHAT_COMPLETIONS: Final = f"{OPENAI}/chat/completions"
COMPLETIONS: Final = f"{OPENAI}/completions"
RESPONSES: Final = f"{OPENAI}/responses"

HEALTH: Final = "/health"

# The prefix of our own routes.
ENGINE: Final = "/engine"
STATE: Final = f"{ENGINE}/state"
BASES: Final = f"{ENGINE}/bases"
ADAPTERS: Final = f"{ENGINE}/adapters"
EVICTIONS: Final = f"{ENGINE}/evictions"
LEASE: Final = f"{ENGINE}/lease"

# Header of an inference request: the id of the caller's organization. An engine reuses cached prefixes only within
# an organization, and shares its rows fairly between organizations.
ASKED_BY: Final = b"tunewarden-asked-by"
# A header of a stream's response: the tokens of the prompt, which nothing else tells if the stream does not end.
INPUT_TOKENS: Final = b"tunewarden-input-tokens"

_ADAPTER = re.compile(rf"{ADAPTERS}/([^/]+)")
_ABORT = re.compile(rf"{ADAPTERS}/([^/]+)/abort")


def abort_path(name: str) -> str:
    """Return the path that aborts the requests of an adapter, which stays loaded."""
    return f"{ADAPTERS}/{quote(name, safe='')}/abort"


def name_in_abort_path(path: str) -> str | None:
    """Return the name of the adapter whose requests a path aborts, None if it is no such path."""
    found = _ABORT.fullmatch(path)
    return found and unquote(found[1])


def push_path(name: str, base: str, member: str) -> str:
    """Return the path and query that push an adapter on a base of the engine, which must have this lease."""
    query = urlencode({"base": base, "member": member})
    return f"{ADAPTERS}/{quote(name, safe='')}?{query}"


def pushed_in(path: str, query: str) -> tuple[str, str, str] | None:
    """Return the adapter's name, its base and the lease in a path and query of `push_path`, None if they are none."""
    found, given = _ADAPTER.fullmatch(path), parse_qs(query)
    match given.get("base"), given.get("member"):
        case [base], [member] if found:
            return unquote(found[1]), base, member
    return None
