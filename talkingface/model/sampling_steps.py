"""Valid numbers of DDIM steps. No torch here, since configurations import this file."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

STEPS = 1000  # of the whole diffusion chain


def step_counts() -> list[int]:
    """Divisors of the length of the chain; other numbers would give uneven steps."""
    return [n for n in range(1, STEPS + 1) if STEPS % n == 0]


def checked_steps(count: int) -> int:
    """Return a valid count.

    Raises:
        ValueError: it does not divide the length of the chain; the message lists the divisors.
    """
    valid = step_counts()
    if count not in valid:
        nearest = min(valid, key=lambda n: abs(n - count))
        raise ValueError(
            f"{count} does not divide {STEPS}, and uneven steps are not supported; use {nearest}, "
            f"or another of {', '.join(map(str, valid))}"
        )
    return count


# Type of configuration keys.
StepCount = Annotated[int, AfterValidator(checked_steps)]
