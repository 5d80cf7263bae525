"""Memory that this process has freed and not given back: what was in it stays there until it is used again.

A push has passed through it in the API server. In a worker on a CPU, vLLM copies an adapter's matrices for every token of
a step, and frees the copies.
"""

import ctypes

PAGE_BYTES = 4096
# The blocks by which what is left is found, halved from the largest to the smallest.
BLOCK_BYTES_MAX, BLOCK_BYTES_MIN = 32 * 1024 * 1024, 64


def give_back() -> None:
    """Return its whole pages to the kernel, which clears them. With glibc's allocator; else nothing is done."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def clear() -> None:
    """Give back its whole pages, and overwrite with zeros what is left: the edges of freed blocks.

    Not reached: blocks of less than 64 bytes, and the edges of those that another thread allocated in an arena of its own.
    """
    give_back()
    libc = ctypes.CDLL(None)
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.sbrk.argtypes = [ctypes.c_ssize_t]
    end_of_heap = libc.sbrk(0) or 0
    last = 0  # each block names the one before: a list of them would take what it is to find
    size = BLOCK_BYTES_MAX
    while size >= BLOCK_BYTES_MIN:
        block = libc.malloc(size) or 0
        if not block or block + size > end_of_heap:  # it is new memory: none of this size is free
            libc.free(block)
            size //= 2
            continue
        edge = min(size, PAGE_BYTES)
        ctypes.memset(block, 0, edge)
        ctypes.memset(block + size - edge, 0, edge)
        ctypes.c_void_p.from_address(block).value = last
        last = block
    while last:
        block, last = last, ctypes.c_void_p.from_address(last).value or 0
        libc.free(block)
    give_back()
