"""Which numbers of DDIM steps are offered. No torch here: configurations check them."""

from __future__ import annotations

STEPS = 1000  # of the whole diffusion chain


def step_counts() -> list[int]:
    """Divisors of the chain: other numbers would visit uneven steps."""
    return [n for n in range(1, STEPS + 1) if STEPS % n == 0]


def checked_steps(count: int) -> int:
    """The count itself.

    Raises:
        ValueError: it does not divide the chain; the message names those that do.
    """
    valid = step_counts()
    if count not in valid:
        nearest = min(valid, key=lambda n: abs(n - count))
        raise ValueError(
            f"{count} does not divide {STEPS}, and uneven steps are not offered; take {nearest}, "
            f"or another of {', '.join(map(str, valid))}"
        )
    return count
