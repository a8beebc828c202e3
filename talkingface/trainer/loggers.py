"""Logs of a training: ``metrics.jsonl``, TensorBoard scalars, pictures and videos."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def to_grid(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """One picture of (N,H,W,3) uint8 pictures, in rows of ``columns``."""
    count, height, width, _ = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, height, width, 3), np.uint8)
    grid[:count] = images
    grid = grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, 3)


class RunLogger:
    """Writes the logs of a run.

    Args:
        tensorboard_dir: folder of the event files; None (ranks above 0) writes none.
        metrics_file: gets one JSON line per validation; None writes none.
        bgr: whether the image channels of the model are in OpenCV's order.
    """

    def __init__(
        self,
        tensorboard_dir: Path | None,
        metrics_file: Path | None,
        *,
        bgr: bool = False,
        wandb_run: Any = None,
    ) -> None:
        self.bgr = bgr
        self.metrics_file = metrics_file
        self.wandb = wandb_run
        self.writer = None
        if tensorboard_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(tensorboard_dir))

    def scalars(self, values: Mapping[str, float], step: int, prefix: str) -> None:
        if self.writer is not None:
            for key, value in values.items():
                self.writer.add_scalar(f"{prefix}/{key}", value, step)
        if self.wandb is not None:
            self.wandb.log({f"{prefix}/{k}": v for k, v in values.items()}, step=step)

    def record(self, values: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        if self.metrics_file is not None:
            with open(self.metrics_file, "a", encoding="utf-8") as file:
                file.write(json.dumps(dict(values)) + "\n")

    def pictures(self, values: Mapping[str, Tensor], step: int, folder: Path | None = None) -> None:
        """Log image batches (B,3,H,W) and video batches (B,T,3,H,W), values 0..1."""
        if self.writer is None:
            return
        for key, tensor in values.items():
            array = (tensor.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
            if self.bgr:
                array = np.flip(array, axis=-3)
            if array.ndim == 5:
                frames = [to_grid(frame.transpose(0, 2, 3, 1)) for frame in array.swapaxes(0, 1)]
                self.animation(key, frames, step)
                still = frames[0]
            else:
                still = to_grid(array.transpose(0, 2, 3, 1))
                self.writer.add_image(key, still, step, dataformats="HWC")
            if folder is not None:
                from talkingface.data.media.writer import write_image

                write_image(folder / f"step{step:07d}_{key.replace('/', '_')}.png", still)

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

    def audio(self, tag: str, samples: np.ndarray, rate: int, step: int) -> None:
        """Log a mono waveform in -1..1."""
        if self.writer is not None:
            self.writer.add_audio(tag, samples[None], step, sample_rate=rate)

    def settings(self, flat: Mapping[str, Any]) -> None:
        """Log the configuration as a text table."""
        if self.writer is not None:
            rows = "\n".join(f"| {key} | {value} |" for key, value in flat.items())
            self.writer.add_text("config", f"| key | value |\n|---|---|\n{rows}")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
