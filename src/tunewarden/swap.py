"""Whether the kernel may write this process's memory to a disk (I16).

Plaintext weights, training data and keys pass through memory. Locking does not help: `mlockall` needs a
privilege and covers neither tmpfs nor memfd. So this module checks whether there is any swap space.
"""

from pathlib import Path

UNSWAPPABLE = "0"


def places(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the devices and files that this process's memory may be swapped to; empty if none.

    Empty if there is no swap, if the cgroup or an ancestor forbids it, or if all of it is zram
    without a backing device, which is memory. Unreadable files count as swap. # proc(5), cgroup v2
    """
    found = _disks(root)
    return () if not found or _is_forbidden(root) else found


def _disks(root: Path) -> tuple[str, ...]:
    try:
        lines = (root / "proc/swaps").read_text("utf-8", "replace").splitlines()[1:]
    except FileNotFoundError:
        if (root / "proc/meminfo").exists():
            return ()  # a kernel without swap (CONFIG_SWAP)
        return ("unknown: /proc/swaps is hidden",)  # by subset=pid, a mount option of /proc
    except OSError:
        return ("unknown: /proc/swaps cannot be read",)
    return tuple(name for name in (line.split()[0] for line in lines) if not _is_zram(root, name))


def _is_zram(root: Path, device: str) -> bool:
    """Return whether a device is zram without a backing device."""
    name = device.removeprefix("/dev/")
    if not name.removeprefix("zram").isdigit():
        return False
    try:
        behind = (root / "sys/block" / name / "backing_dev").read_text("utf-8")
    except FileNotFoundError:
        # Kernels without CONFIG_ZRAM_WRITEBACK have no such file.
        return (root / "sys/block" / name).is_dir()
    except OSError:
        return False
    return behind.strip() == "none"


def _is_forbidden(root: Path) -> bool:
    """Return whether the cgroup of this process, or an ancestor, forbids swap."""
    try:
        memberships = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return False
    own = next((line[3:] for line in memberships if line.startswith("0::/")), None)
    if own is None:
        return False
    top = root / "sys/fs/cgroup"
    group = top / own.lstrip("/")
    for directory in (group, *group.parents):
        try:
            if (directory / "memory.swap.max").read_text("utf-8").strip() == UNSWAPPABLE:
                return True
        except OSError:
            pass  # the root of the hierarchy has no such file
        if directory == top:
            break
    return False
