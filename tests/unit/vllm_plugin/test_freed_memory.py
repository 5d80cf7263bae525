"""What is left in a process's memory of blocks that it has freed, with and without clearing it."""

import hashlib
import subprocess
import sys

import pytest
from tests.support import process_memory

# Blocks as of an adapter's matrices, each beside one that is kept, so that the allocator cannot join them.
CHILD = """
import ctypes, hashlib, sys
from tunewarden_vllm import freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pattern = hashlib.sha512(b"freed").digest()
freed = []
for at in range(200):
    size = 2048 + 911 * (at % 60)
    freed.append(libc.malloc(size))
    libc.malloc(200)
    for offset in range(64, size - 64, 64):
        ctypes.memmove(freed[-1] + offset, pattern, 64)
for block in freed:
    libc.free(block)
ctypes.memset(ctypes.c_char_p(pattern), 0, 64)
if sys.argv[1] != "nothing":
    getattr(freed_memory, sys.argv[1])()
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("work", "least", "most"),
    [("nothing", 5000, 1e9), ("give_back", 1, 20_000), ("clear", 0, 0)],
)
def test_clearing_leaves_nothing_of_what_was_freed(work: str, least: int, most: int) -> None:
    """The controls: without it all is left, and the edges of blocks if whole pages are given back."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, work],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        found = process_memory.count(child.pid, [hashlib.sha512(b"freed").digest()])
        child.communicate()
    print(f"{work}: {found} pieces of 64 bytes")
    assert least <= found <= most
