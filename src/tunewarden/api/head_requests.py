"""HEAD: every GET route answers it with GET's headers and no body. The router sees GET.

uvicorn omits the body. A handler looks at IS_HEAD only if producing the body is expensive.
"""

from starlette.types import Scope

IS_HEAD = "tunewarden.is_head"


def as_get(scope: Scope) -> Scope:
    """Return the scope for the router: that of a GET with IS_HEAD, if the request is HEAD."""
    return {**scope, "method": "GET", IS_HEAD: True} if scope["method"] == "HEAD" else scope


def method(scope: Scope) -> str:
    """Return the method that the client sent."""
    return "HEAD" if IS_HEAD in scope else scope["method"]
