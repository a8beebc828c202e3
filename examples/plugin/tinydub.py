"""Example of a model in a folder outside the toolkit: a small U-Net with audio input.

It reuses the preparation, dataset, configuration keys and dubbing pipeline of HyperLipsBase and
adds only a network and a loss. Run it with

    python run_talkingface.py --plugin_path=examples/plugin --model=TinyDub --dataset=Synthetic \
        --preset=tiny
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkingface.model.abstract_talkingface import AbstractTalkingFace


class TinyDubNet(nn.Module):
    """Masked frame and reference (N,6,H,W), mel window (N,1,80,16) -> frame (N,3,H,W) in 0..1."""

    def __init__(self, channels: int = 16, code: int = 32) -> None:
        super().__init__()
        self.sound = nn.Sequential(nn.Flatten(), nn.Linear(80 * 16, code), nn.ReLU())
        self.down1 = nn.Sequential(nn.Conv2d(6, channels, 3, 2, 1), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.ReLU())
        self.tell = nn.Linear(code, 2 * channels)
        self.up1 = nn.Sequential(nn.Conv2d(3 * channels, channels, 3, 1, 1), nn.ReLU())
        self.up2 = nn.Conv2d(channels + 6, 3, 3, 1, 1)

    def encode_audio(self, audio: Tensor) -> tuple[Tensor, ...]:
        """Audio code (N,32); the dubbing pipeline calls this once per video."""
        return (self.sound(audio),)

    def decode(self, codes, face: Tensor, render_batch: int | None = None) -> Tensor:
        """Frames (N,3,H,W) in 0..1; the dubbing pipeline calls this for each batch of frames."""
        fine = self.down1(face)
        coarse = self.down2(fine) + self.tell(codes[0])[:, :, None, None]
        coarse = nn.functional.interpolate(coarse, scale_factor=2.0)
        fine = self.up1(torch.cat([coarse, fine], 1))
        fine = nn.functional.interpolate(fine, scale_factor=2.0)
        return torch.sigmoid(self.up2(torch.cat([fine, face], 1)))

    def forward(self, audio: Tensor, face: Tensor) -> Tensor:
        return self.decode(self.encode_audio(audio), face)


class TinyDub(AbstractTalkingFace):
    """One network and one loss; everything else is inherited."""

    def __init__(self, cfg) -> None:
        super().__init__(cfg)
        self.generator = TinyDubNet()

    def forward_train(self, batch) -> dict[str, Tensor]:
        video = batch["input_frames"]  # (B,6,T,H,W)
        frames = video.transpose(1, 2).flatten(0, 1)
        generated = self.generator(batch["indiv_mels"].flatten(0, 1), frames)
        return {"generated": generated.unflatten(0, (len(video), -1)).transpose(1, 2)}

    def calculate_loss(self, batch, phase, shared) -> dict[str, Tensor]:
        loss = (shared["generated"] - batch["gt"]).abs().mean()
        return {"loss": loss, "l1": loss}
