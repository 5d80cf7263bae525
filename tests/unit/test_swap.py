"""Whether memory may be written to a disk, read from a /proc and a /sys made for each case."""

from pathlib import Path

import pytest

from tunewarden import swap

TITLES = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
FILE = "/swap.img                               file\t\t8388604\t\t0\t\t-2\n"
ZRAM = "/dev/zram0                              partition\t4194300\t\t0\t\t100\n"


def _machine(
    root: Path,
    *,
    swaps: str | None = TITLES,
    behind: str | None = None,
    cgroup: str = "0::/\n",
    limits: dict[str, str] | None = None,
) -> Path:
    """Write what the kernel would say; `behind` is zram0's backing device, `limits` are swap.max by cgroup."""
    files = {"proc/self/cgroup": cgroup, "proc/meminfo": "SwapTotal: 0 kB\n"}
    if swaps is not None:
        files["proc/swaps"] = swaps
    if behind is not None:
        files["sys/block/zram0/backing_dev"] = behind
    for group, limit in (limits or {}).items():
        files[f"sys/fs/cgroup/{group}/memory.swap.max"] = limit
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("swaps", [TITLES, None, ""])
def test_without_swap_memory_stays_in_memory(tmp_path: Path, swaps: str | None) -> None:
    assert swap.places(_machine(tmp_path, swaps=swaps)) == ()


def test_what_is_hidden_counts_as_swap_unless_the_cgroup_forbids_it(tmp_path: Path) -> None:
    """A /proc mounted with `subset=pid`, as systemd's ProcSubset=pid does, has processes only."""
    for name, limits, found in (
        ("open", {}, ("unknown: /proc/swaps is hidden",)),
        ("closed", {"unit": "0\n"}, ()),
    ):
        root = _machine(tmp_path / name, swaps=None, cgroup="0::/unit\n", limits=limits)
        (root / "proc/meminfo").unlink()
        assert swap.places(root) == found


def test_a_swap_file_is_named(tmp_path: Path) -> None:
    assert swap.places(_machine(tmp_path, swaps=TITLES + FILE)) == ("/swap.img",)


def test_zram_is_memory_only_without_a_backing_device(tmp_path: Path) -> None:
    plain = _machine(tmp_path / "plain", swaps=TITLES + ZRAM, behind="none\n")
    backed = _machine(tmp_path / "backed", swaps=TITLES + ZRAM, behind="/dev/loop3\n")
    both = _machine(tmp_path / "both", swaps=TITLES + ZRAM + FILE, behind="none\n")
    assert swap.places(plain) == ()
    assert swap.places(backed) == ("/dev/zram0",)
    assert swap.places(both) == ("/swap.img",)


def test_a_file_that_is_only_called_zram_is_swap(tmp_path: Path) -> None:
    named = TITLES + "/home/zram0                             file\t\t1024\t\t0\t\t-2\n"
    assert swap.places(_machine(tmp_path, swaps=named, behind="none\n")) == ("/home/zram0",)


def test_an_older_kernels_zram_has_no_backing_device(tmp_path: Path) -> None:
    root = _machine(tmp_path, swaps=TITLES + ZRAM)
    assert swap.places(root) == ("/dev/zram0",), "nothing tells that it is zram"
    (root / "sys/block/zram0").mkdir(parents=True)
    assert swap.places(root) == ()


@pytest.mark.parametrize("group", ["system.slice/tunewarden.service", "system.slice", "."])
def test_a_cgroup_or_one_above_it_can_forbid_swap(tmp_path: Path, group: str) -> None:
    cgroup = "0::/system.slice/tunewarden.service\n"
    root = _machine(tmp_path, swaps=TITLES + FILE, cgroup=cgroup, limits={group: "0\n"})
    assert swap.places(root) == ()


@pytest.mark.parametrize(
    ("cgroup", "limits"),
    [
        ("0::/a/b\n", {"a/b": "max\n", "a": "1048576\n"}),
        ("0::/a\n", {"a/b": "0\n", "other": "0\n"}),
        ("4:memory:/a\n", {"a": "0\n"}),
        ("", {}),
    ],
)
def test_other_limits_do_not_forbid_it(tmp_path: Path, cgroup: str, limits: dict[str, str]) -> None:
    root = _machine(tmp_path, swaps=TITLES + FILE, cgroup=cgroup, limits=limits)
    assert swap.places(root) == ("/swap.img",)


def test_what_cannot_be_read_counts_as_swap(tmp_path: Path) -> None:
    root = _machine(tmp_path, swaps=None)
    (root / "proc/swaps").mkdir()
    assert swap.places(root) == ("unknown: /proc/swaps cannot be read",)
