"""Logs of a training: ``metrics.jsonl``, TensorBoard scalars, pictures and videos."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.errors import EnvironmentProblem
from talkingface.utils.paths import write_text

if TYPE_CHECKING:
    from torch import Tensor


log = logging.getLogger(__name__)


def _never_ends_a_run(method: Callable[..., None]) -> Callable[..., None]:
    """After a failed write, e.g. on a full disk, the training goes on without this log."""

    @wraps(method)
    def attempted(self: RunLogger, *args: Any, **options: Any) -> None:
        try:
            method(self, *args, **options)
        except (OSError, EnvironmentProblem) as error:
            self.writer = None
            log.warning("the training goes on without TensorBoard: %s", error)

    return attempted


class RunLogger:
    """Writes the logs of a run; a full disk ends a log, not the run.

    Args:
        tensorboard_dir: folder of the event files; None (ranks above 0) writes none.
        metrics_file: gets one JSON line per validation; None writes none.
    """

    def __init__(
        self,
        tensorboard_dir: Path | None,
        metrics_file: Path | None,
        *,
        wandb_run: Any = None,
    ) -> None:
        self.metrics_file = metrics_file
        self.wandb = wandb_run
        self.writer = None
        if tensorboard_dir is not None:
            self._open(tensorboard_dir)

    @_never_ends_a_run
    def _open(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    @_never_ends_a_run
    def scalars(self, values: Mapping[str, float], step: int, prefix: str) -> None:
        if self.writer is not None:
            for key, value in values.items():
                self.writer.add_scalar(f"{prefix}/{key}", value, step)
        if self.wandb is not None:
            self.wandb.log({f"{prefix}/{k}": v for k, v in values.items()}, step=step)

    def rewind(self, step: int) -> None:
        """Remove the lines of ``metrics.jsonl`` after ``step``; a resumed run writes them again."""
        if self.metrics_file is None or not self.metrics_file.is_file():
            return
        kept = []
        for line in self.metrics_file.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line of a killed process
                if json.loads(line).get("step", 0) <= step:
                    kept.append(line + "\n")
        write_text(self.metrics_file, "".join(kept))

    def record(self, values: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        if self.metrics_file is not None:
            try:
                with open(self.metrics_file, "a", encoding="utf-8") as file:
                    file.write(json.dumps(dict(values)) + "\n")
            except OSError as error:
                log.warning("%s: a line is lost: %s", self.metrics_file, error)

    @_never_ends_a_run
    def pictures(self, values: Mapping[str, Tensor], step: int, folder: Path | None = None) -> None:
        """Log image batches (B,3,H,W) and video batches (B,T,3,H,W), values 0..1."""
        if self.writer is None:
            return
        from torchvision.utils import make_grid

        for key, tensor in values.items():
            batch = (tensor.detach().float().clamp(0, 1) * 255).round().byte().cpu()
            video = batch.ndim == 5
            frames = [
                make_grid(pictures, padding=0).permute(1, 2, 0).numpy()  # rows of 8
                for pictures in (batch.unbind(1) if video else [batch])
            ]
            still = frames[0]
            if video:
                self.animation(key, frames, step)
            else:
                self.writer.add_image(key, still, step, dataformats="HWC")
            if folder is not None:
                from talkingface.data.media.writer import write_image

                write_image(folder / f"step{step:07d}_{key.replace('/', '_')}.png", still)

    @_never_ends_a_run
    def animation(self, tag: str, frames: list[np.ndarray], step: int, fps: int = 5) -> None:
        """A short video, (H,W,3) uint8, as an animated GIF, which TensorBoard plays."""
        if self.writer is None or not frames:
            return
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        buffer = io.BytesIO()
        images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
        gif = {"save_all": True, "append_images": images[1:], "duration": 1000 // fps, "loop": 0}
        images[0].save(buffer, format="GIF", **gif)
        height, width = frames[0].shape[:2]
        picture = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue()
        )
        self.writer._get_file_writer().add_summary(
            Summary(value=[Summary.Value(tag=tag, image=picture)]), step
        )

    @_never_ends_a_run
    def audio(self, tag: str, samples: np.ndarray, rate: int, step: int) -> None:
        """Log a mono waveform in -1..1."""
        if self.writer is not None:
            self.writer.add_audio(tag, samples[None], step, sample_rate=rate)

    @_never_ends_a_run
    def settings(self, flat: Mapping[str, Any]) -> None:
        """Log the configuration as a text table."""
        if self.writer is not None:
            rows = "\n".join(f"| {key} | {value} |" for key, value in flat.items())
            self.writer.add_text("config", f"| key | value |\n|---|---|\n{rows}")

    @_never_ends_a_run
    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
