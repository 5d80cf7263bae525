"""Run by test_sdk_majors.py with one major of the SDK: uses it as a program of a user would.

`python sdk_major.py MAJOR BASE_URL OWNER_KEY READER_KEY BASE MODEL…`, with five models to delete.
"""

import asyncio
import sys
from collections.abc import Callable

import openai
import pytest


def main() -> None:
    major, url, owner, reader, base, *models = sys.argv[1:]
    assert openai.__version__.split(".")[0] == major, openai.__version__
    _synchronous(url, owner, reader, base, models[:2])
    asyncio.run(_asynchronous(url, owner, base, models[2:4]))
    _as_the_page_shows(url, owner, reader, models[4])
    print(f"openai {openai.__version__} passed")


def _synchronous(url: str, owner: str, reader: str, base: str, models: list[str]) -> None:
    client = openai.OpenAI(base_url=url, api_key=owner)
    listed = [model.id for model in client.models.list()]
    assert {base, *models} <= set(listed), listed
    assert client.models.retrieve(models[0]).id == models[0]
    assert client.models.delete(models[0]).deleted is True
    assert client.models.with_raw_response.delete(models[1]).parse().id == models[1]
    _expect(openai.NotFoundError, 404, lambda: client.models.delete(models[0]))
    _expect(openai.NotFoundError, 404, lambda: client.models.retrieve("ft:x"))
    _expect(openai.PermissionDeniedError, 403, lambda: client.models.delete(base))
    _expect(openai.NotFoundError, 404, lambda: _chat(client, models[0]))
    _expect(
        openai.AuthenticationError, 401, openai.OpenAI(base_url=url, api_key="sk-x").models.list
    )
    limited = openai.OpenAI(base_url=url, api_key=reader)
    assert base in [model.id for model in limited.models.list()]
    _expect(openai.BadRequestError, 400, lambda: client.models.list(extra_query={"limit": "x"}))


async def _asynchronous(url: str, owner: str, base: str, models: list[str]) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key=owner) as client:
        assert {base, *models} <= {model.id async for model in client.models.list()}
        answers = await asyncio.gather(*(client.models.delete(one) for one in models))
        assert all(answer.deleted for answer in answers)
        for call in (client.models.retrieve(models[0]), client.models.delete(models[0])):
            with pytest.raises(openai.NotFoundError) as caught:
                await call
            assert caught.value.code == "model_not_found"


def _as_the_page_shows(url: str, owner: str, reader: str, model: str) -> None:
    """The error handling of spec/delete-model.txt looks at words."""
    said = []
    for key, model_id in ((reader, model), (owner, "ft:model-id")):
        try:
            openai.OpenAI(base_url=url, api_key=key).models.delete(model_id)
        except Exception as e:  # noqa: BLE001  as the page has it
            if "permission" in str(e).lower():
                said.append("You need Owner role to delete models")
            elif "not found" in str(e).lower():
                said.append("Model does not exist")
    assert said == ["You need Owner role to delete models", "Model does not exist"], said
    assert openai.OpenAI(base_url=url, api_key=owner).models.delete(model).deleted


def _chat(client: openai.OpenAI, model: str) -> object:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hello"}]
    )


def _expect(kind: type[openai.APIStatusError], status: int, call: Callable[[], object]) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert caught.type is kind
    assert caught.value.status_code == status
    assert caught.value.request_id


if __name__ == "__main__":
    main()
