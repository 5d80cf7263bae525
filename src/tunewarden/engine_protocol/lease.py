"""The lease without which an engine uses no adapter: what both sides compute, and why it is safe. No clocks are compared.

The engine answers each renewal with a *nonce* that it made at time t of its own CLOCK_BOOTTIME. The next renewal repeats
it, and the lease then holds until t + `held_seconds(T)`. Since t is before that renewal was sent, a renewal that is
delayed extends nothing.

The gateway counts a nonce, in a row that survives its processes, when it gets it, and so before it sends it. A deleter that sees a count
unchanged for `ended_seconds(T)` of its own CLOCK_BOOTTIME, and in one statement ends the member with that count, knows
that the lease is over: every nonce that may have been sent was made before it began to look. What it assumes is that the
rates of both clocks are within `RATE_ERROR` of true time, and that they run while a machine is suspended.
"""

from typing import Final

# A lease is renewed so many times while it lasts.
RENEWALS: Final = 3
RATE_ERROR: Final = 0.01
# What the engine may need between its look at the clock and the last byte that it writes.
GRACE_SECONDS: Final = 0.5


def held_seconds(lease_seconds: float) -> float:
    """Return for how long a lease holds by the engine's clock, from when its nonce was made."""
    return lease_seconds * (1 - RATE_ERROR)


def ended_seconds(lease_seconds: float) -> float:
    """Return after how long without a renewal a lease is over, by the deleter's clock."""
    return lease_seconds * (1 + RATE_ERROR) + GRACE_SECONDS


def renewal_seconds(lease_seconds: float) -> float:
    """Return the pause between two renewals."""
    return lease_seconds / RENEWALS
