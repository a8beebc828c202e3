"""What a model costs: parameters, operations, time and memory."""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from talkingface.components.store import ComponentStore
from talkingface.data.clips import Clip
from talkingface.data.media.audio import load_audio
from talkingface.errors import TalkingFaceError
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline, Rendered

log = logging.getLogger(__name__)

_PROBE_SECONDS = 1.0


@dataclass
class Cost:
    """Figures of one model.

    Attributes:
        parameters: numbers in the networks that generate.
        flops_per_frame: floating point operations of matrix products and convolutions, two per
            multiply-add, with all that belongs to a frame (also its share of the sound).
        real_time_factor: time to make a video over the time it plays; above 1 is slower.
        ms_per_frame: the same per frame. The face track of the source is known before; reading,
            networks, pasting and encoding count.
        peak_memory_mb: on a GPU what PyTorch held at most; on a CPU the process at most, with all
            libraries and models that it had loaded.
        device: where the networks ran.
    """

    parameters: int | None = None
    flops_per_frame: float | None = None
    real_time_factor: float | None = None
    ms_per_frame: float | None = None
    peak_memory_mb: float | None = None
    device: str = ""
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def add_times(self, rendered: list[dict[str, Any]]) -> None:
        """Take times and memory of the videos that were made (:func:`timed`)."""
        frames = sum(item["frames"] for item in rendered)
        if not frames:
            return
        seconds = sum(item["seconds"] for item in rendered)
        self.ms_per_frame = 1000 * seconds / frames
        self.real_time_factor = seconds / sum(item["video_seconds"] for item in rendered)
        peaks = [item["peak_mb"] for item in rendered if item["peak_mb"]]
        self.peak_memory_mb = max(peaks) if peaks else None


def measure_network(pipeline: Pipeline, clip: Clip) -> Cost:
    """Parameters and operations of a pipeline; generates one second of video."""
    from torch.utils.flop_counter import FlopCounterMode

    model = pipeline.model
    own = [model.network] if model.networks() else []  # some only join others
    specs = ComponentStore(pipeline.cfg).specs
    parts = [part.network for name, part in model.components.items() if specs[name].at_inference]
    networks = [*own, *parts]
    cost = Cost(
        parameters=sum(p.numel() for net in networks for p in net.parameters()),
        device=_device_name(pipeline.device),
    )
    frames = max(1, round(_PROBE_SECONDS * pipeline.cfg.fps))
    with tempfile.TemporaryDirectory() as folder:
        counter = FlopCounterMode(display=False)
        try:
            wave = load_audio(clip.audio, SAMPLE_RATE)[: int(_PROBE_SECONDS * SAMPLE_RATE)]
            with counter:
                done = pipeline.render(clip.path, wave, Path(folder) / "probe.mp4", frames=frames)
        except TalkingFaceError as error:
            cost.note = f"operations not counted: {error}"
            return cost
    flops = counter.get_total_flops()
    if flops:
        cost.flops_per_frame = flops / max(1, done.frames)
    else:
        cost.note = "operations not counted: the network runs outside of PyTorch's dispatcher"
    return cost


def timed(rendered: Rendered, peak_mb: float | None) -> dict[str, float | None]:
    """The figures of one video that are kept for :meth:`Cost.add_times`."""
    return {
        "frames": rendered.frames,
        "seconds": rendered.seconds_taken,
        "video_seconds": rendered.seconds_of_video,
        "peak_mb": peak_mb,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """Yields a list that holds the peak in MB after the block; empty where it is not known."""
    found: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.append(torch.cuda.max_memory_allocated(device) / 2**20)
        return
    fresh = _reset_peak()
    yield found
    peak = _process_peak()
    if peak is not None and fresh:
        found.append(peak)


def _reset_peak() -> bool:
    """Let Linux forget the highest memory use so far; elsewhere it cannot be forgotten."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _process_peak() -> float | None:
    if sys.platform != "linux":
        return None
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None
