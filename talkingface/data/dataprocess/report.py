"""The result of a preparation, and its files: ``report.html`` and ``report.csv`` with status and
measures of every clip.

Both files depend on the markers alone and contain no times, so equal data give equal files.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from talkingface.data.clips import Clip
from talkingface.utils.paths import shown, write_if_changed
from talkingface.utils.safe_text import csv_text

SHEETS = ".report"  # folder of the contact sheets
_PER_PAGE = 200
_LISTED_MEASURES = (  # label, key of the measures, format
    ("face", "face_ratio", "{:.0%}"),
    ("height", "face_height", "{:.0f} px"),
    ("sharpness", "sharpness", "{:.0f}"),
    ("speech", "speech_ratio", "{:.0%}"),
    ("mouth motion", "mouth_motion", "{:.1f} %"),
    ("sound offset", "av_offset_ms", "{:+.0f} ms"),
    ("confidence", "av_confidence", "{:.2f}"),
)
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em;color:#222;max-width:1300px}
h1{font-size:20px} table{border-collapse:collapse;margin:1em 0}
td,th{padding:2px 12px 2px 0;text-align:left} td.n{text-align:right}
.clip{border-top:1px solid #ddd;padding:10px 0} .clip b{overflow-wrap:anywhere}
.clip img{display:block;max-width:100%;margin-top:6px}
.bad{color:#b00020} .warn{color:#a65c00} .ok{color:#2e7d32} .facts{color:#666}
nav a{margin-right:8px}
"""


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


def write_report(report: ProcessReport, title: str) -> None:
    """Write ``report.csv``, ``report.html`` and further pages into the preparation's folder."""
    names = sorted(report.markers, key=lambda n: (_rank(report, n), n))
    write_if_changed(report.folder / "report.csv", _table(report, sorted(report.markers)))
    pages = max(-(-len(names) // _PER_PAGE), 1)
    for number in range(pages):
        part = names[number * _PER_PAGE : (number + 1) * _PER_PAGE]
        text = _page(report, title, part, number, pages)
        write_if_changed(report.folder / _page_name(number), text)
    number = pages
    while (old := report.folder / _page_name(number)).exists():  # of a larger dataset
        old.unlink()
        number += 1


def _rank(report: ProcessReport, name: str) -> int:
    """0 for unusable clips, 1 for clips with warnings or outside a limit, 2 for the others."""
    marker = report.markers[name]
    if marker["status"] != "ok":
        return 0
    return 1 if name in report.flags or marker.get("warnings") else 2


def _page_name(number: int) -> str:
    return f"report-{number + 1}.html" if number else "report.html"


def _table(report: ProcessReport, names: Iterable[str]) -> str:
    keys = sorted({key for m in report.markers.values() for key in m.get("measures") or ()})
    head = "clip status used reason outside warnings frames seconds source speaker".split()
    lines: list[list[Any]] = [[*head, *keys]]
    for name in names:
        marker, clip = report.markers[name], report.clips.get(name)
        measures = marker.get("measures") or {}
        lines.append(
            [
                name,
                marker["status"],
                "no" if marker["status"] != "ok" or name in report.dropped else "yes",
                marker.get("reason", ""),
                "; ".join(f"{k}: {v}" for k, v in report.flags.get(name, {}).items()),
                "; ".join(marker.get("warnings", ())),
                marker["frames"],
                marker["seconds"],
                clip.source if clip else "",
                clip.speaker if clip else "",
                *("" if measures.get(key) is None else measures[key] for key in keys),
            ]
        )
    return csv_text(lines)


def _page(report: ProcessReport, title: str, names: list[str], number: int, pages: int) -> str:
    links = "".join(
        f"<a href='{_page_name(n)}'>{n + 1}</a>" if n != number else f"<a><b>{n + 1}</b></a>"
        for n in range(pages)
    )
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    if number == 0:
        parts.append(_summary(report))
    if pages > 1:
        parts.append(f"<nav>Pages: {links}</nav>")
    parts += [_clip(report, name) for name in names]
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _summary(report: ProcessReport) -> str:
    good = report.of("ok")
    frames = sum(report.markers[name]["frames"] for name in good)
    seconds = sum(report.markers[name]["seconds"] for name in good)
    warned = sum(bool(marker.get("warnings")) for marker in report.markers.values())
    rows = [
        ("clips", str(len(report.markers))),
        ("usable", f"{len(good)} ({frames} frames, {seconds:.0f} s)"),
        ("left out by quality.drop", str(len(report.dropped))),
        ("outside a limit of quality", str(len(report.flags))),
        ("with warnings", str(warned)),
    ]
    rows += [(f"not usable: {reason}", str(n)) for reason, n in report.reasons().most_common()]
    rows += [(f"outside {key}", str(n)) for key, n in report.flag_counts().most_common()]
    cells = "".join(f"<tr><td>{html.escape(a)}</td><td>{html.escape(b)}</td></tr>" for a, b in rows)
    return (
        f"<table>{cells}</table><p>Figures of every clip: <a href='report.csv'>report.csv</a>. "
        "Green lines: landmarks; yellow: crop; grey-blue: sound; red: mouth opening; blue: scene "
        "cut. A positive sound offset means that the sound is early. Unusable clips stand first, "
        "then those outside a limit.</p>"
    )


def _clip(report: ProcessReport, name: str) -> str:
    marker = report.markers[name]
    measures: Mapping[str, Any] = marker.get("measures") or {}
    notes = []
    if marker["status"] != "ok":
        notes.append(
            f"<span class='bad'>{marker['status']}: {html.escape(marker['reason'])}</span>"
        )
    texts = [*report.flags.get(name, {}).values(), *marker.get("warnings", ())]
    notes += [f"<span class='warn'>{html.escape(text)}</span>" for text in texts]
    if name in report.dropped:
        notes.append("<span class='bad'>left out</span>")
    values = [f"{marker['seconds']:.1f} s"] if marker["seconds"] else []
    values += [
        f"{label} {form.format(measures[key])}"
        for label, key, form in _LISTED_MEASURES
        if measures.get(key) is not None
    ]
    yaw = measures.get("yaw_min"), measures.get("yaw_max")
    if None not in yaw:
        values.append("yaw {:.0f} to {:.0f}".format(*yaw))
    picture = ""
    if (report.folder / SHEETS / f"{name}.jpg").exists():
        link = html.escape(quote(f"{SHEETS}/{name}.jpg"), quote=True)
        picture = f"<img loading='lazy' src='{link}' alt=''>"
    return (
        f"<div class='clip'><b>{html.escape(name)}</b> "
        f"{' &middot; '.join(notes) or '<span class=ok>good</span>'}"
        f"<div class='facts'>{html.escape(' | '.join(values))}</div>{picture}</div>"
    )
