"""What a training shows: one line for the whole run, with the time that is left."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

from talkingface.utils.logs import duration, progress

log = logging.getLogger(__name__)

_ESTIMATED_AFTER = 20  # steps of this start, after which the duration is told


class TrainingDisplay:
    """A progress bar over all steps; lines every half minute without a terminal.

    Args:
        title: of the line.
        show: ``show_progress`` of the configuration; False in all processes but one.
        digits: decimals of losses.
        total: steps of the whole run; None while it is not known.
        step: steps before this start.
        deadline: value of ``time.monotonic`` at which training ends in any case.
    """

    def __init__(
        self,
        title: str,
        show: str | bool,
        digits: int,
        total: int | None,
        step: int,
        deadline: float = math.inf,
    ) -> None:
        self.digits, self.step, self.deadline = digits, step, deadline
        self._first, self._started = step, time.monotonic()
        self._best, self._losses = "", ""
        self.show = show
        self.bar = progress(
            total=total,
            initial=step,
            desc=title,
            leave=False,
            show=show,
            form="{desc} {percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix}",
            plain="{desc}: step {n_fmt}/{total_fmt}{postfix}",
        )

    def seconds_left(self) -> float:
        """Time to the last step at the speed of this start, at most to the deadline."""
        now = time.monotonic()
        left = self.deadline - now
        done = self.step - self._first
        if self.bar.total is not None and done:
            left = min(left, (self.bar.total - self.step) * (now - self._started) / done)
        return left

    def plan(self, total: int) -> None:
        """The number of steps of the whole run has become known."""
        self.bar.total = total

    def advance(self, planned: bool = True) -> None:
        """After each step. ``planned``: whether the time of the run is limited by a setting."""
        self.step += 1
        left = self.seconds_left()
        if math.isfinite(left):
            text = f"{duration(left)} left"
            self.bar.set_postfix_str(f"{text}{self._best}{self._losses}", refresh=False)
        self.bar.update()
        if self.step - self._first == _ESTIMATED_AFTER and self.show and math.isfinite(left):
            each = (time.monotonic() - self._started) / _ESTIMATED_AFTER
            advice = f"; --minutes=10 plans for {600 / each:.0f} steps"
            advice = "" if planned or left < 900 else advice
            log.info("about %s left, %.2g s per step%s", duration(left), each, advice)

    def losses(self, means: Mapping[str, float]) -> None:
        """Show the loss of the last phase and its first part."""
        totals = [key for key in means if key.startswith("loss")][-1:]
        parts = [key for key in means if not key.startswith("loss")]
        if totals:  # the parts of a phase follow its loss
            names = list(means)
            parts = [key for key in names[names.index(totals[0]) :] if key in parts]
        shown = [f"{key} {means[key]:.{self.digits}f}" for key in (*totals, *parts[:1])]
        self._losses = "".join(f", {text}" for text in shown)

    def best(self, value: float) -> None:
        """Show the best value of the validations."""
        self._best = f", best {value:.{self.digits}f}"

    def close(self) -> None:
        """Remove the line."""
        self.bar.close()
