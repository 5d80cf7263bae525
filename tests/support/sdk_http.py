"""HTTP clients for the stock SDK, as it makes them itself but for one thing: all share the system's certificates, which
take 40 ms of a processor to read.
"""

import asyncio
import contextlib
import ssl
from functools import cache

import openai


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Client(openai.DefaultHttpxClient):
    # The SDK closes only a client that it made.
    def __del__(self) -> None:
        if not self.is_closed:
            with contextlib.suppress(Exception):
                self.close()


class _AsyncClient(openai.DefaultAsyncHttpxClient):
    def __del__(self) -> None:
        if not self.is_closed:
            with contextlib.suppress(Exception):
                asyncio.get_running_loop().create_task(self.aclose())


def client() -> openai.DefaultHttpxClient:
    """Return one for an `openai.OpenAI`."""
    return _Client(verify=_trusted())


def async_client() -> openai.DefaultAsyncHttpxClient:
    """Return one for an `openai.AsyncOpenAI`."""
    return _AsyncClient(verify=_trusted())
