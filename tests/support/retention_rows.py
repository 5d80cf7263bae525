"""The rows of the authorization table about retention."""

from collections.abc import Callable, Iterator
from functools import partial

from tests.support.acts import RULE
from tests.support.servers import Server

Asking = Callable[[str | None], int]


def rows(
    server: Server,
    other: str,
    ask: Callable[[str, str], Asking],
    post: Callable[[str, object, str | None], int],
) -> Iterator[tuple[str, str, Asking]]:
    """Yield each route on each kind of target; what is foreign is made with the key `other`."""
    retention, rules = "/v1/retention", "/v1/retention/rules"
    yield f"GET {retention}", "-", ask("GET", retention)
    yield f"POST {retention}/resume", "-", ask("POST", f"{retention}/resume")
    yield f"GET {rules}", "-", ask("GET", rules)
    # For those who may it is no rule: there may be only so many.
    yield f"POST {rules}", "-", partial(post, rules, {"action": "delete"})
    made = {
        "own": server.post(rules, RULE).json["id"],
        "foreign": server.post(rules, RULE, key=other).json["id"],
        "unknown": "rule_nobody",
    }
    for target, rule in made.items():
        where, route = f"{rules}/{rule}", f"{rules}/{{rule_id}}"
        yield f"GET {route}", target, ask("GET", where)
        yield f"POST {route}", target, partial(post, where, {"notice_days": 8})
        yield f"GET {route}/preview", target, ask("GET", f"{where}/preview")
        yield f"POST {route}/run", target, ask("POST", f"{where}/run")
        if target != "own":  # the first who may delete it would leave none for the others
            yield f"DELETE {route}", target, ask("DELETE", where)
