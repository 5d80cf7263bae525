"""`python -m tests.fakes.plain_uvicorn DESCRIPTOR`: uvicorn on httptools as it comes, with an application that
answers each request with what it was asked for. The control of the tests of framing."""

import re
import socket
import sys

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

NAMED = re.compile(rb"odd-\d+")


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200 with the name in the path, or else the first one in the body, and with who asked."""
    if scope["type"] != "http":
        return
    request = Request(scope, receive)
    body = await request.body()
    named = NAMED.findall(scope["raw_path"]) or NAMED.findall(body)
    asked = b"%b %b by %b" % (
        scope["method"].encode(),
        b"".join(named[:1]) or scope["raw_path"],
        request.headers.get("authorization", "nobody").encode(),
    )
    await Response(asked)(scope, receive, send)


def main() -> None:
    """Serve on the socket with this descriptor, until killed."""
    config = uvicorn.Config(
        application, http="httptools", ws="none", log_level="critical", lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
