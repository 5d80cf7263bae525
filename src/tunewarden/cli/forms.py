"""Uploads by commands: streamed multipart forms in bounded memory; RFC 7578."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tunewarden.artifacts.adapters import read_adapter_directory
from tunewarden.cli.client import AS_IT_CAME, Client, Object
from tunewarden.cli.local_files import CHUNK_BYTES, LocalFile, shortened
from tunewarden.errors import Error
from tunewarden.ids import token
from tunewarden.registry import file_rules

# Larger files are sent in parts: this is the server's limit for one request.
SINGLE_BYTES_MAX = 512 * 1024 * 1024
PART_BYTES = 64 * 1024 * 1024
MIME_TYPE = "application/jsonl"


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a form: `read` returns the next of its `size` bytes, up to as many as it is asked for."""

    name: str
    filename: str
    size: int
    read: Callable[[int], bytes]


def import_adapter(
    client: Client,
    directory: Path,
    base: str,
    suffix: str,
    metadata: Mapping[str, str] | None = None,
) -> Object:
    """Import the adapter in a directory; return the model. Raises Error."""
    fields = {"base": base, "suffix": suffix}
    if metadata:
        fields["metadata"] = json.dumps(metadata)
    settings, weights = read_adapter_directory(directory)
    with weights:
        files = (
            Part("adapter_config", "adapter_config.json", len(settings), BytesIO(settings).read),
            Part(
                "adapter_model",
                "adapter_model.safetensors",
                os.fstat(weights.fileno()).st_size,
                weights.read,
            ),
        )
        return _send(client, ("models",), fields, files)


def upload(client: Client, file: LocalFile, purpose: str) -> Object:
    """Upload a file in one request, or in parts if it is large; return it. It is read once. Raises Error."""
    file_rules.check_name(file.name, purpose)
    if file.size <= SINGLE_BYTES_MAX:
        whole = Part("file", file.name, file.size, file.read)
        return _send(client, ("files",), {"purpose": purpose}, (whole,))
    announced = {"filename": file.name, "purpose": purpose, "mime_type": MIME_TYPE}
    path = ("uploads", client.post("uploads", fields={**announced, "bytes": file.size})["id"])
    try:
        parts: list[str] = []
        for start in range(0, file.size, PART_BYTES):
            size = min(PART_BYTES, file.size - start)
            parts.append(add_part(client, path[1], file.name, size, file.read))
        made: Object = client.post(*path, "complete", fields={"part_ids": parts})["file"]
    except BaseException:
        with suppress(Error):
            client.post(*path, "cancel")
        raise
    return made


def add_part(
    client: Client, upload_id: str, name: str, size: int, read: Callable[[int], bytes]
) -> str:
    """Add a part of `size` bytes to an upload, as they are read; return its id. Raises Error."""
    part = Part("data", name, size, read)
    return str(_send(client, ("uploads", upload_id, "parts"), {}, (part,))["id"])


def _send(
    client: Client, path: Sequence[str], fields: dict[str, str], files: Sequence[Part]
) -> Object:
    boundary = token(40)
    texts = b"".join(
        _head(boundary, name) + value.encode(errors=AS_IT_CAME) + b"\r\n"
        for name, value in fields.items()
    )
    heads = [_head(boundary, part.name, part.filename) for part in files]
    end = f"--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield texts
        for head, part in zip(heads, files, strict=True):
            yield head
            left = part.size
            while left:
                data = part.read(min(left, CHUNK_BYTES))
                if not data:
                    raise shortened(part.filename)
                left -= len(data)
                yield data
            yield b"\r\n"
        yield end

    length = len(texts) + len(end)
    length += sum(len(head) + part.size + 2 for head, part in zip(heads, files, strict=True))
    content_type = f"multipart/form-data; boundary={boundary}"
    return client.send(*path, body=body(), length=length, content_type=content_type)


def _head(boundary: str, name: str, filename: str = "") -> bytes:
    """Return the head of one part; a file's name may be any text."""
    escaped = filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    file = f'; filename="{escaped}"' if filename else ""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode(errors=AS_IT_CAME)
