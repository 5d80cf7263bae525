"""Run by test_files.py with one major of the SDK: uses files and uploads as a program of a user would.

`python sdk_files.py MAJOR BASE_URL OWNER_KEY READER_KEY DIRECTORY`; the directory is for its own files.
"""

import asyncio
import hashlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import openai
import pytest

LINES = b'{"messages":[{"role":"user","content":"Hi"}]}\n' * 100
PART = 100_000


def main() -> None:
    major, url, owner, reader, directory = sys.argv[1:]
    assert openai.__version__.split(".")[0] == major, openai.__version__
    path = Path(directory) / "train.jsonl"
    path.write_bytes(LINES)
    large = Path(directory) / "large.bin"
    large.write_bytes(os.urandom(3 * PART + 5))
    for is_strict in (False, True):
        client = openai.OpenAI(base_url=url, api_key=owner, _strict_response_validation=is_strict)
        _files(client, openai.OpenAI(base_url=url, api_key=reader), path)
        _uploads(client, large)
        asyncio.run(_asynchronous(url, owner, is_strict=is_strict, path=path, large=large))
    print(f"openai {openai.__version__} passed")


def _files(client: openai.OpenAI, limited: openai.OpenAI, path: Path) -> None:
    made = client.files.create(file=path, purpose="fine-tune")
    assert (made.object, made.bytes, made.filename) == ("file", len(LINES), "train.jsonl")
    assert (made.purpose, made.status, made.expires_at) == ("fine-tune", "processed", None)
    assert client.files.wait_for_processing(made.id).id == made.id
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == LINES
    assert limited.files.content(made.id).content == LINES
    assert made.id in [file.id for file in client.files.list(purpose="fine-tune")]
    assert made.id not in [file.id for file in client.files.list(purpose="vision")]
    brief = client.files.create(
        file=("notes.txt", io.BytesIO(b"notes"), "text/plain"),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert brief.expires_at == brief.created_at + 3600
    listed = [file.id for file in client.files.list(limit=1, order="asc")]
    assert listed.index(made.id) < listed.index(brief.id), "page after page, oldest first"
    assert client.files.list(limit=0, after=brief.id, order="asc", purpose="purpose").data == []
    _expect(openai.PermissionDeniedError, 403, lambda: limited.files.delete(made.id))
    _expect(
        openai.PermissionDeniedError, 403, lambda: limited.files.create(file=b"x", purpose="batch")
    )
    for file in (made, brief):
        gone = client.files.delete(file.id)
        assert (gone.id, gone.object, gone.deleted) == (file.id, "file", True)
        for call in (client.files.retrieve, client.files.content, client.files.delete):
            _expect(openai.NotFoundError, 404, lambda call=call, file=file: call(file.id))  # type: ignore[misc]  # mypy infers no lambda with a default
    _expect(
        openai.BadRequestError,
        400,
        lambda: client.files.create(file=("train.txt", LINES), purpose="fine-tune"),
    )


def _uploads(client: openai.OpenAI, large: Path) -> None:
    content = large.read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    done = client.uploads.upload_file_chunked(
        file=large,
        mime_type="application/octet-stream",
        purpose="user_data",
        part_size=PART,
        md5=md5,
    )
    assert done.status == "completed"
    assert done.file is not None
    assert (done.file.bytes, done.file.filename) == (len(content), "large.bin")
    assert client.files.content(done.file.id).read() == content
    assert client.files.delete(done.file.id).deleted
    begun = client.uploads.create(
        bytes=4,
        filename="later.txt",
        mime_type="text/plain",
        purpose="assistants",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert (begun.status, begun.file, begun.object) == ("pending", None, "upload")
    assert begun.expires_at == begun.created_at + 3600
    parts = [client.uploads.parts.create(begun.id, data=one) for one in (b"ab", b"cd")]
    assert {part.upload_id for part in parts} == {begun.id}
    turned = client.uploads.complete(begun.id, part_ids=[parts[1].id, parts[0].id])
    assert turned.file is not None
    assert client.files.content(turned.file.id).read() == b"cdab"
    assert turned.file.expires_at == turned.file.created_at + 7200
    again = client.uploads.create(
        bytes=4, filename="x.txt", mime_type="text/plain", purpose="assistants"
    )
    assert client.uploads.cancel(again.id).status == "cancelled"
    _expect(
        openai.BadRequestError, 400, lambda: client.uploads.parts.create(again.id, data=b"abcd")
    )


async def _asynchronous(url: str, owner: str, *, is_strict: bool, path: Path, large: Path) -> None:
    async with openai.AsyncOpenAI(
        base_url=url, api_key=owner, _strict_response_validation=is_strict
    ) as client:
        made = await client.files.create(file=path, purpose="fine-tune")
        assert (await client.files.wait_for_processing(made.id)).status == "processed"
        assert (await client.files.content(made.id)).read() == LINES
        assert made.id in {file.id async for file in client.files.list()}
        upload = await client.uploads.create(
            bytes=6, filename="six", mime_type="text/plain", purpose="vision"
        )
        parts = await asyncio.gather(
            *(client.uploads.parts.create(upload.id, data=one) for one in (b"ab", b"cd", b"ef"))
        )
        done = await client.uploads.complete(upload.id, part_ids=[part.id for part in parts])
        assert done.file is not None
        assert (await client.files.content(done.file.id)).read() == b"abcdef"
        chunked = await client.uploads.upload_file_chunked(
            file=large, mime_type="text/plain", purpose="user_data", part_size=PART
        )
        assert chunked.file is not None
        answers = await asyncio.gather(
            *(client.files.delete(one) for one in (made.id, done.file.id, chunked.file.id))
        )
        assert all(answer.deleted for answer in answers)
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(made.id)


def _expect(kind: type[openai.APIStatusError], status: int, call: Callable[[], object]) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert caught.type is kind
    assert caught.value.status_code == status
    assert caught.value.request_id


if __name__ == "__main__":
    main()
