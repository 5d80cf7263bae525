"""guidellm: eight requests by its HTTP backend, with what it always sends; its loader of data needs torch."""

import asyncio
import os

from guidellm.backends.openai.http import OpenAIHTTPBackend
from guidellm.schemas import GenerationRequest, RequestInfo, UsageMetrics
from guidellm.schemas.backends import OpenAIHTTPBackendArgs


async def main() -> None:
    target = os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
    backend = OpenAIHTTPBackend(
        OpenAIHTTPBackendArgs(
            kind="openai_http",
            target=target,
            model=os.environ["MODEL"],
            api_key=os.environ["OPENAI_API_KEY"],
        )
    )
    await backend.process_startup()
    await backend.validate()
    for number in range(8):
        request = GenerationRequest(
            columns={"text_column": [f"Hello {number}"]}, output_metrics=UsageMetrics(text_tokens=8)
        )
        async for response, _ in backend.resolve(request, RequestInfo()):
            last = response
        assert last.output_metrics.text_tokens == 8
        print(last.text)
    await backend.process_shutdown()


asyncio.run(main())
