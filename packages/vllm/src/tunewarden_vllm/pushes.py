"""An adapter's two files on their way into vLLM: written to memory, read by the workers, overwritten, unlinked (I16)."""

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tunewarden import processes
from tunewarden.engine_protocol.messages import PUSH_HEAD_BYTES, config_bytes_in
from tunewarden.ids import token
from tunewarden_vllm import freed_memory
from tunewarden_vllm.refusals import Refused, invalid
from tunewarden_vllm.surface import Receive

PREFIX = "tunewarden-vllm-"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CONFIG_BYTES_MAX = 64 * 1024
# A safetensors header of 20,000 tensors.
HEADER_BYTES = 8 * 1024 * 1024
FLOAT_BYTES = 4
ZEROS = bytes(1024 * 1024)


class Gone(Exception):
    """The client disconnected before the body's end."""


def prepare(root: Path) -> Path:
    """Create the directory of this process below `root`; only its user may look into it.

    Those of processes that were killed are removed.
    """
    mine = f"{PREFIX}{os.getuid()}-"
    for left in root.glob(f"{mine}*"):
        pid, start, _ = left.name.removeprefix(mine).split("-")
        if processes.is_gone(int(pid), start):
            shutil.rmtree(left)
    # The end cannot be guessed, so that no other user can take the name.
    directory = root / f"{mine}{os.getpid()}-{processes.start_of(os.getpid())}-{token(24)}"
    directory.mkdir(mode=0o700)
    return directory


def weights_bytes_max(shapes: dict[str, tuple[int, int]], rank_max: int) -> int:
    """Return the size of the largest adapter that fits a base."""
    return HEADER_BYTES + FLOAT_BYTES * rank_max * sum(out + into for out, into in shapes.values())


@asynccontextmanager
async def received(
    receive: Receive, scratch: Path, *, rank_max: int, weights_max: int
) -> AsyncIterator[Path]:
    """Receive a push; yield the directory with its files, which are gone afterwards. Raises Refused, Gone."""
    # A name of its own for each load: vLLM's prefix cache knows an adapter by name and path, and another load's
    # blocks must not be found again.
    directory = scratch / token(24)
    directory.mkdir(mode=0o700)
    try:
        await _write(receive, directory, rank_max, weights_max)
        yield directory
    finally:
        erase(directory)
        freed_memory.give_back()  # pieces of the body were there


def erase(directory: Path) -> None:
    """Overwrite and unlink an adapter's files: a mapping of a worker that failed may still hold their pages."""
    for name in (CONFIG, WEIGHTS):
        try:
            with (directory / name).open("r+b", buffering=0) as file:
                left = os.fstat(file.fileno()).st_size
                while left > 0:
                    left -= file.write(ZEROS[: min(left, len(ZEROS))]) or 0
        except FileNotFoundError:
            continue
        (directory / name).unlink()
    directory.rmdir()


async def _write(receive: Receive, directory: Path, rank_max: int, weights_max: int) -> None:
    """Write the two files of a body: the config's size, the config, the weights."""
    first = b""
    size: int | None = None
    written, is_end = 0, False
    with (directory / WEIGHTS).open("wb", buffering=0) as weights:
        while not is_end:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            piece = message.get("body", b"")
            is_end = not message.get("more_body", False)
            if size is None:
                first += piece
                piece = b""
                begin = PUSH_HEAD_BYTES + config_bytes_in(first[:PUSH_HEAD_BYTES])
                if begin > PUSH_HEAD_BYTES + CONFIG_BYTES_MAX and len(first) >= PUSH_HEAD_BYTES:
                    raise Refused(
                        413, f"The adapter's config is larger than {CONFIG_BYTES_MAX} bytes."
                    )
                if len(first) >= max(begin, PUSH_HEAD_BYTES + 1):
                    size = begin
                    _check(first[PUSH_HEAD_BYTES:begin], rank_max)
                    (directory / CONFIG).write_bytes(first[PUSH_HEAD_BYTES:begin])
                    piece = first[begin:]
            written += len(piece)
            if written > weights_max:
                raise Refused(
                    413,
                    f"No adapter of rank {rank_max} or less on this base is larger than {weights_max} bytes.",
                )
            weights.write(piece)
    if size is None or not written:
        raise invalid(
            "The body has no adapter: its config's size in 8 bytes, its config, its weights."
        )


def _check(config: bytes, rank_max: int) -> None:
    """Check what vLLM refuses without saying what to do about it."""
    try:
        rank = json.loads(config)["r"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise invalid(f"The adapter's {CONFIG} names no rank `r`.") from error
    if not isinstance(rank, int) or not 1 <= rank <= rank_max:
        raise invalid(
            f"The adapter's rank is {rank}; this vLLM serves ranks up to {rank_max} (--max-lora-rank)."
        )
