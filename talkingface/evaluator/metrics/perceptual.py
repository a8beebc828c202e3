"""LPIPS and FID: distances of network features; both need weights that the user provides."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkingface.errors import DataError, WeightsError
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.frechet import RunningGaussian, frechet_distance
from talkingface.model.losses.perceptual import LPIPSNetwork
from talkingface.utils.weights import load_strict, read_weights

# net: file, smallest side in px.
BACKBONES = {"alex": ("alexnet-owt-7be5be79.pth", 31), "vgg": ("vgg16-397923af.pth", 16)}
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
FEATURES = 2048  # values per frame; fewer frames give a singular covariance
_HEADS = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"
_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"


def load_lpips(
    net: str, backbone: Mapping[str, Tensor], heads: Mapping[str, Tensor]
) -> LPIPSNetwork:
    """LPIPS with its weights.

    Args:
        net: ``alex`` (evaluation) or ``vgg`` (losses).
        backbone: state_dict of torchvision's classification network.
        heads: state_dict of the learnt 1x1 weights, ``lin0.model.1.weight`` and so on.

    Raises:
        WeightsError: either belongs to another network.
    """
    network = LPIPSNetwork(net)
    state = {key: value for key, value in {**backbone, **heads}.items() if "classifier" not in key}
    load_strict(network, state, source=f"backbone or heads of LPIPS-{net}", network="LPIPS")
    return network.eval()


def inception_features(state: Mapping[str, Tensor], source: str = "the state_dict") -> nn.Module:
    """The network of FID: (N,3,H,W) RGB in -1..1 of 299 px -> (N,2048).

    torchvision's Inception v3 with the pooling of the TensorFlow original: averages leave the
    padding out, and the last block takes the maximum.

    Args:
        state: the weights that pytorch-fid converted from TensorFlow.

    Raises:
        WeightsError: other weights, in particular torchvision's, which give FID another scale.
    """
    from torchvision.models import inception_v3

    classes = state["fc.bias"].shape[0] if "fc.bias" in state else None
    if classes == 1000 or any(key.startswith("AuxLogits") for key in state):
        raise WeightsError(
            f"{source} holds torchvision's Inception, which gives FID another scale. "
            f"Get {_FID}{INCEPTION}"
        )
    network = inception_v3(weights=None, aux_logits=False, init_weights=False, num_classes=1008)
    load_strict(network, state, source=source, network="FID")
    for name, block in network.named_children():
        if hasattr(block, "branch_pool"):
            _pool_like_tensorflow(block, maximum=name == "Mixed_7c")
    network.fc = nn.Identity()
    return network.eval()


def _pool_like_tensorflow(block: nn.Module, maximum: bool) -> None:
    """Replace the average pooling in front of a block's pooling branch."""
    block_input: list[Tensor] = []
    block.register_forward_pre_hook(lambda _, inputs: block_input.append(inputs[0]))

    def pooled(_: nn.Module, __: tuple) -> tuple[Tensor]:
        x = block_input.pop()
        if maximum:
            return (F.max_pool2d(x, 3, stride=1, padding=1),)
        return (F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),)

    block.branch_pool.register_forward_pre_hook(pooled)


def _signed(frame: np.ndarray, device: str) -> Tensor:
    """(H,W,3) uint8 -> (1,3,H,W) float32 in -1..1."""
    return torch.from_numpy(frame).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1


class NetworkMetric(Metric):
    """Base of LPIPS and FID: one of ``stride`` frames, and weights files that may be missing."""

    revision = 2  # other places of the frames

    @abstractmethod
    def files(self) -> list[Path]:
        """The weights files; raises WeightsError when one is missing."""

    def missing(self) -> str | None:
        try:
            absent = [str(path) for path in self.files() if not path.is_file()]
        except WeightsError as error:
            return str(error)
        return f"{', '.join(absent)} does not exist" if absent else None

    def file(self, key: str, name: str, origin: str) -> Path:
        """A weights file: the one that parameter ``key`` names, else ``name`` in ``checkpoints/``.

        Raises:
            WeightsError: missing; the message explains where to get it and where to put it.
        """
        path = self.weights_file(f"{self.name}/{name}", name, key=key)
        if path is None:
            raise WeightsError(
                f"{self.name} needs {name} from {origin}: put it into checkpoints/{self.name}/, or "
                f"set metric_params.{self.name}.{key} to its path"
            )
        return path

    def definition(self) -> str:
        try:
            weights = self.checksum(*self.files())
        except WeightsError:
            weights = "none"
        text = f"{self.version},weights={weights},stride={self.params['stride']}"
        return f"{self.name}[{text},r{self.revision}]"


class LPIPS(NetworkMetric):
    """Perceptual distance, mean over frames."""

    choices = {"net": tuple(BACKBONES)}

    @property
    def version(self) -> str:
        return f"v0.1,net={self.params['net']}"

    def files(self) -> list[Path]:
        net = self.params["net"]
        name = BACKBONES[net][0]
        backbone = self.file("weights", name, f"https://download.pytorch.org/models/{name}")
        return [backbone, self.file("heads", f"lpips_lin_{net}.pth", _HEADS)]

    @cached_property
    def _network(self) -> LPIPSNetwork:
        network = load_lpips(self.params["net"], *map(read_weights, self.files()))
        return network.to(self.params["device"])

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        self._values: list[float] = []

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        side = BACKBONES[self.params["net"]][1]
        if min(real.shape[:2]) < side:
            raise DataError(f"LPIPS: a side of the picture is shorter than {side} px")
        if self.sampled(index):
            pair = (_signed(frame, self.params["device"]) for frame in (generated, real))
            with torch.no_grad():
                self._values.append(self._network(*pair).item())

    def finish(self, clip: ClipPair) -> dict[str, float]:
        return {"LPIPS": float(np.mean(self._values))} if self._values else self.undefined("empty")


class FID(NetworkMetric):
    """Distance of the distributions of all generated and all real frames of a row.

    It has no value per clip; :meth:`pool` returns the value of the row.
    """

    version = "pytorch-fid"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sides = [RunningGaussian(FEATURES) for _ in range(2)]

    def files(self) -> list[Path]:
        return [self.file("weights", INCEPTION, _FID + INCEPTION)]

    @cached_property
    def _network(self) -> nn.Module:
        (path,) = self.files()
        return inception_features(read_weights(path), path.name).to(self.params["device"])

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        self._features: list[np.ndarray] = []

    @torch.no_grad()
    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        if not self.sampled(index):
            return
        # The original size, so that no frame is resized twice.
        pair = (generated if clip.native is None else clip.native, real)
        pictures = [
            F.interpolate(_signed(frame, self.params["device"]), size=(299, 299), mode="bilinear")
            for frame in pair
        ]
        self._features.append(self._network(torch.cat(pictures)).cpu().numpy())

    def finish(self, clip: ClipPair) -> dict[str, float]:
        if not self._features:
            return self.undefined("no frame")
        features = np.stack(self._features, axis=1)
        if not np.isfinite(features).all():  # would make the value of the whole row nan
            return self.undefined("the network gives no finite features")
        for side, part in zip(self._sides, features, strict=True):
            side.add(part)
        return dict.fromkeys(self.outputs, math.nan)

    def pool(self) -> tuple[dict[str, float], list[str]]:
        """FID, the number of frames per side since the last call, and remarks."""
        sides, self._sides = self._sides, [RunningGaussian(FEATURES) for _ in range(2)]
        count = sides[0].count
        values = {"FID": math.nan, "FID_n": float(count)}
        self.reasons = {} if count > 1 else {"FID": "needs two frames"}
        if count > 1:
            values["FID"] = frechet_distance(*(part for side in sides for part in side.moments()))
        if count >= FEATURES:
            return values, []
        return values, [f"FID: only {count} frames; below {FEATURES} it is too large"]
