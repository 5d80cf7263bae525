"""`/`: leads people who open the server's address in a browser to the console; to others it says what this is."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from tunewarden import __version__
from tunewarden.api.docs_page import POLICY, STYLE

PAGE = f"""\
<!doctype html><html lang="en"><meta charset="utf-8"><title>Tunewarden</title>
<style>{STYLE}</style><h1>Tunewarden {__version__}</h1>
<p>A server for fine-tuned models with OpenAI's API, on which a deleted model is deleted.</p>
<p>Clients use the base URL <code>/v1</code> of this address and an API key of this server.</p>
<ul><li><a href="/docs">/docs</a>: the API's reference; it needs a key unless the operator opened it</li>
<li><a href="/readyz">/readyz</a>: whether the server is ready</li>
<li><a href="/log/checkpoint">/log/checkpoint</a>: the public log of deletions</li></ul>
</html>
"""

routes = APIRouter()


@routes.get("/")
async def show_start_page(request: Request) -> Response:
    """Lead a browser to the console; return a page that says what this server is to what asks for no page."""
    if "text/html" in request.headers.get("accept", ""):
        return Response(status_code=303, headers={"location": "/console", "vary": "accept"})
    policy = f"{POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return Response(
        PAGE, media_type="text/html", headers={"content-security-policy": policy, "vary": "accept"}
    )
