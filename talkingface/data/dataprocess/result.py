"""The result of a preparation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talkingface.data.clips import Clip
from talkingface.utils.paths import shown


def short(reason: str | None) -> str | None:
    """A reason up to the first colon, without its numbers, to count equal reasons."""
    return reason and reason.split(":")[0]


@dataclass
class ProcessReport:
    """The result of a preparation.

    Attributes:
        markers: the marker per clip id: ``status`` (``ok``, ``skipped`` or ``failed``),
            ``reason``, and values such as ``frames`` and ``seconds``.
        fresh: number of clips that this run processed; the others are from earlier runs.
        clips: the clips by id.
        flags: per clip id the limits of ``quality`` that it breaks, with the measured values.
        dropped: ids of usable clips that ``quality.drop`` leaves out.
        pending: number of clips that other shards have not prepared yet.
    """

    processor: str
    folder: Path
    markers: dict[str, dict[str, Any]] = field(default_factory=dict)
    fresh: int = 0
    clips: dict[str, Clip] = field(default_factory=dict)
    flags: dict[str, dict[str, str]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    pending: int = 0

    def of(self, status: str) -> list[str]:
        return [name for name, marker in self.markers.items() if marker["status"] == status]

    def reasons(self) -> Counter:
        """Number of unusable clips by reason, without the numbers inside the reasons."""
        bad = (m for m in self.markers.values() if m["status"] != "ok")
        return Counter(short(m["reason"]) for m in bad)

    def flag_counts(self) -> Counter:
        """Number of usable clips outside each limit of ``quality``."""
        return Counter(key for broken in self.flags.values() for key in broken)

    def describe(self) -> str:
        good = [m for m in self.markers.values() if m["status"] == "ok"]
        text = (
            f"{len(good)} of {len(self.markers)} clips usable, {sum(m['frames'] for m in good)} "
            f"frames, {sum(m['seconds'] for m in good):.0f} s ({self.fresh} processed now)"
        )
        for reason, count in self.reasons().most_common():
            names = [n for n, m in self.markers.items() if short(m.get("reason")) == reason]
            text += f"\n  not usable, {reason}: {count} ({', '.join(names[:3])}"
            text += ", ...)" if count > 3 else ")"
        warned = [name for name, marker in self.markers.items() if marker.get("warnings")]
        if warned:
            first = self.markers[warned[0]]["warnings"][0]
            text += f"\n  with warnings: {len(warned)} ({warned[0]}: {first}"
            text += "; ...)" if len(warned) > 1 else ")"
        for key, count in self.flag_counts().most_common():
            examples = [f"{n}: {b[key]}" for n, b in self.flags.items() if key in b]
            text += f"\n  outside quality.{key}: {count} ({'; '.join(examples[:2])}"
            text += "; ...)" if count > 2 else ")"
        if self.flags:
            kept = len(self.flags) - len(self.dropped)
            text += f"\n  {kept} of these are still used, {len(self.dropped)} left out "
            text += "(quality.drop)"
        if self.pending:
            text += f"\n  {self.pending} clips are still to be prepared by other shards"
        else:
            text += f"\n  report: {shown(self.folder / 'report.html')}"
        return text
