"""Whether memory may hold plaintext weights, files and training data (I16, DESIGN §7)."""

from collections.abc import Callable
from dataclasses import dataclass

from tunewarden import swap
from tunewarden.errors import Error, Kind

REMEDY = (
    "turn swap off (swapoff -a), forbid it for this server (cgroup memory.swap.max = 0, systemd"
    " MemorySwapMax=0), swap to zram without a backing device, or accept it with"
    " swap_may_hold_plain_weights = true (receipts then say so)"
)


@dataclass(frozen=True, slots=True)
class PlainMemory:
    """`swap_is_accepted` is the operator's setting; `places` returns where memory may be swapped to.

    `places` is called each time, because swap can be turned on while the server runs.
    """

    swap_is_accepted: bool
    places: Callable[[], tuple[str, ...]] = lambda: swap.places()  # noqa: PLW0108  looked up late

    def is_safe(self) -> bool:
        """Return whether plaintext in memory cannot reach a disk, or the operator accepted that it may."""
        return self.swap_is_accepted or not self.places()

    def state(self, *, was_swappable: bool) -> str:
        """Return a receipt's statement about memory: one of `deletion.leaf.MEMORY`.

        `was_swappable`: whether swap was seen during the artifact's lifetime.
        """
        if not was_swappable and not self.places():
            return "unswappable"
        return "swap_accepted" if self.swap_is_accepted else "swappable"

    def check(self) -> None:
        """Check that memory may hold private data now. Raises Error(MISCONFIGURED) with the remedy."""
        if not self.is_safe():
            raise Error(
                Kind.MISCONFIGURED,
                "This server's machine may swap memory to a disk, so the server accepts no weights, files or"
                f" fine-tuning jobs. Its operator can {REMEDY}.",
                code="memory_may_be_swapped",
            )
