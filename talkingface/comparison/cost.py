"""Cost of a model: parameters, operations, time and memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from talkingface.components.store import ComponentStore
from talkingface.data.clips import Clip
from talkingface.data.media.audio import load_audio
from talkingface.errors import TalkingFaceError
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline

_PROBE_SECONDS = 1.0


@dataclass
class Cost:
    """Cost of one model; None where it is not known.

    Attributes:
        parameters: number of parameters of the networks that generate.
        flops_per_frame: floating-point operations of matrix products and convolutions, two per
            multiply-add, of a whole video (audio networks too) divided by its frames.
        real_time_factor: generation time over duration of the video; above 1 is slower than real
            time.
        ms_per_frame: generation time per frame, in ms: reading, networks, pasting and encoding,
            without the face tracking of the source.
        peak_memory_mb: in MB (2^20 bytes); on a GPU the largest memory allocated by PyTorch, on a
            CPU the largest resident memory of the process with all loaded libraries and models.
        device: name of the device of the networks.
        note: why operations are not counted.
    """

    parameters: int | None = None
    flops_per_frame: float | None = None
    real_time_factor: float | None = None
    ms_per_frame: float | None = None
    peak_memory_mb: float | None = None
    device: str = ""
    note: str = ""

    def add_times(self, rendered: list[dict[str, Any]]) -> None:
        """Set times and memory from those of the generated videos.

        Args:
            rendered: of each video ``frames``, ``seconds`` to generate it, ``video_seconds`` of
                its duration, and ``peak_mb``, which may be None.
        """
        frames = sum(item["frames"] for item in rendered)
        if not frames:
            return
        seconds = sum(item["seconds"] for item in rendered)
        self.ms_per_frame = 1000 * seconds / frames
        self.real_time_factor = seconds / sum(item["video_seconds"] for item in rendered)
        peaks = [item["peak_mb"] for item in rendered if item["peak_mb"]]
        self.peak_memory_mb = max(peaks) if peaks else None


def measure_network(pipeline: Pipeline, clip: Clip) -> Cost:
    """Count parameters and operations of a pipeline, with one generated second of video."""
    model = pipeline.model
    networks = [model.network] if model.networks() else []  # joined models have none of their own
    specs = ComponentStore(pipeline.cfg).specs
    networks += [c.network for name, c in model.components.items() if specs[name].at_inference]
    device = pipeline.device
    cost = Cost(
        parameters=sum(p.numel() for net in networks for p in net.parameters()),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
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


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """Yields a list that contains the peak in MB after the block; empty where it is not known."""
    peaks: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peaks
        peaks.append(torch.cuda.max_memory_allocated(device) / 2**20)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak of the process
    except OSError:
        yield peaks
        return
    yield peaks
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            peaks.append(int(line.split()[1]) / 1024)
