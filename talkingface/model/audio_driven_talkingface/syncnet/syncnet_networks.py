"""SyncNet (Chung and Zisserman, "Out of time", ACCV-W 2016) with the official state_dict names.

Source of layer sizes: joonson/syncnet_python, file ``SyncNetModel.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkingface.data.media.mfcc import AUDIO_STEPS, WINDOW
from talkingface.model.fuse import optimize_for_inference

EPSILON = 1e-6  # added to every component of a difference, as in torch's pairwise_distance


class SyncNet(nn.Module):
    """Two streams that embed 0.2 s of video and of audio; the distance is small if in sync.

    Args:
        width: channel factor; 1 is the official network (13,631,616 parameters).
        image_size: side of the face crops in px; 224 is official. The last kernel is smaller for
            smaller sizes, so weights are for one size.
        out_features: length of the embeddings; 1024 is official.
    """

    def __init__(self, width: float = 1.0, image_size: int = 224, out_features: int = 1024) -> None:
        super().__init__()
        self.image_size = image_size

        def wide(channels: int) -> int:
            return max(4, round(channels * width))

        def conv2(inside: int, outside: int, kernel: object = 3, pad: int = 1) -> list[nn.Module]:
            conv = nn.Conv2d(inside, outside, kernel, padding=pad)
            return [conv, nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]

        def conv3(
            inside: int, outside: int, kernel: tuple, stride: int = 1, pad: int = 1
        ) -> list[nn.Module]:
            conv = nn.Conv3d(inside, outside, kernel, (1, stride, stride), (0, pad, pad))
            return [conv, nn.BatchNorm3d(outside), nn.ReLU(inplace=True)]

        a, b, c, d, e = (wide(n) for n in (64, 192, 384, 256, 512))
        self.netcnnaud = nn.Sequential(
            *conv2(1, a),
            nn.MaxPool2d((1, 1), (1, 1)),
            *conv2(a, b),
            nn.MaxPool2d((3, 3), (1, 2)),
            *conv2(b, c),
            *conv2(c, d),
            *conv2(d, d),
            nn.MaxPool2d((3, 3), (2, 2)),
            *conv2(d, e, (5, 4), 0),
        )
        f, g = wide(96), wide(256)
        layers = [
            *conv3(3, f, (WINDOW, 7, 7), 2, 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *conv3(f, g, (1, 5, 5), 2, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *conv3(g, g, (1, 3, 3)),
            *conv3(g, g, (1, 3, 3)),
            *conv3(g, g, (1, 3, 3)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
        ]
        side = _side_after(layers, image_size)
        self.netcnnlip = nn.Sequential(*layers, *conv3(g, e, (1, side, side), 1, 0))
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(e, e), nn.BatchNorm1d(e), nn.ReLU(), nn.Linear(e, out_features))
            for _ in range(2)
        )

    def forward_aud(self, mfcc: Tensor) -> Tensor:
        """MFCC windows (B,1,13,20) -> embeddings (B,1024), not normalised."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def forward_lip(self, frames: Tensor) -> Tensor:
        """Frames (B,3,5,S,S), BGR in 0..255 -> embeddings (B,1024), not normalised."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))

    def lip_track(self, frames: Tensor) -> Tensor:
        """Frames (B,3,T,S,S) -> embeddings of all windows (B,T-4,1024).

        Only the first convolution has a temporal kernel, so this equals a loop over windows.
        """
        features = self.netcnnlip(frames).flatten(3).flatten(2).transpose(1, 2)
        return self.netfclip(features.flatten(0, 1)).unflatten(0, features.shape[:2])

    def forward(self, mfcc: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (N,1,13,20) and frames (B,3,T,S,S) -> (N,1024) and :meth:`lip_track`.

        Training calls the whole network at once: only this method is wrapped for several devices
        and for half precision.
        """
        return self.forward_aud(mfcc), self.lip_track(frames)


def lip_stream_2d(network: SyncNet) -> nn.Module:
    """The lip stream with 2D layers for inference on a CPU; equal up to rounding.

    Only the first convolution has a temporal kernel: with the five frames of a window as 15
    channels all layers are 2D, which takes half the time on a CPU. The input is (N,15,S,S) with
    channels ordered by colour (b1..b5, g1..g5, r1..r5); the output is (N,1024).
    """
    layers: list[nn.Module] = []
    for layer in network.netcnnlip:
        if isinstance(layer, nn.Conv3d):
            plane = nn.Conv2d(
                layer.in_channels * layer.kernel_size[0], layer.out_channels, layer.kernel_size[1:],
                layer.stride[1:], layer.padding[1:],
            )  # fmt: skip
            plane.weight.data.copy_(layer.weight.data.flatten(1, 2))
            plane.bias.data.copy_(layer.bias.data)
            layers.append(plane)
        elif isinstance(layer, nn.BatchNorm3d):
            norm = nn.BatchNorm2d(layer.num_features)
            norm.load_state_dict(layer.state_dict())
            layers.append(norm)
        elif isinstance(layer, nn.MaxPool3d):
            pad = layer.padding[1:] if isinstance(layer.padding, tuple) else layer.padding
            pool = nn.MaxPool2d(layer.kernel_size[1:], layer.stride[1:], pad)
            # Before the ReLU, which then has fewer values: ReLU and maximum commute.
            layers.insert(-1, pool)
        else:
            layers.append(nn.ReLU(inplace=True))
    return optimize_for_inference(nn.Sequential(nn.Sequential(*layers), nn.Flatten(),
                                                network.netfclip))  # fmt: skip


def sound_stream(network: SyncNet) -> nn.Module:
    """The audio stream for inference: (N,1,13,20) -> (N,1024), equal up to rounding."""
    return optimize_for_inference(nn.Sequential(network.netcnnaud, nn.Flatten(), network.netfcaud))


def _side_after(layers: list[nn.Module], image_size: int) -> int:
    """Side of the feature map after ``layers``."""
    side = image_size
    for layer in layers:
        if isinstance(layer, (nn.Conv3d, nn.MaxPool3d)):
            kernel, stride, pad = (
                v[2] if isinstance(v, tuple) else v
                for v in (layer.kernel_size, layer.stride, layer.padding)
            )
            side = (side + 2 * pad - kernel) // stride + 1
    if side < 1:
        raise ValueError(f"image_size={image_size} is too small for SyncNet; use at least 96")
    return side


@torch.no_grad()
def audio_windows(mfcc: Tensor, count: int) -> Tensor:
    """MFCC (13,n) -> windows (count,1,13,20); that of frame v has the columns 4v to 4v+19."""
    return mfcc.unfold(1, AUDIO_STEPS, 4)[:, :count].transpose(0, 1)[:, None]
