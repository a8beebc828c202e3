"""MODA: one mapping from speech to lips, eyes, head and torso (DreamtaleCore/MODA)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from talkingface.data.dataprocess.moda.files import OFFICIAL_SIDE, SIDE
from talkingface.data.dataprocess.moda.sound import samples_of
from talkingface.data.face.topology import INNER_LIP_BOTTOM, INNER_LIP_TOP, MODA_MOUTH
from talkingface.model.abilities import ClipResult
from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.moda.moda_networks import (
    PARTS,
    WIDTH,
    MODANet,
    wav2vec2,
)
from talkingface.model.audio_driven_talkingface.moda.moda_statistics import NormStats
from talkingface.model.layers.windows import map_windows

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.moda.moda_dataset import MappingClip

_TOP = 3 * MODA_MOUTH.index(INNER_LIP_TOP) + 1
_BOTTOM = 3 * MODA_MOUTH.index(INNER_LIP_BOTTOM) + 1
_EYE_DISTANCE = 120.0  # of the canonical face, px
_VELOCITY = {"lips": 5.0, "eyes": 1.0, "head": 1.0, "torso": 0.5}
_SAMPLES = 5
_TABLES = ("biased_mask", "memory_mask", "ppe.pe", "embedding.pe")


class MODA(AbstractTalkingFace):
    """The mapping network in standardised units.

    Batch of ``MODADataset``. Outputs of the network times :meth:`units` are offsets in px, degrees
    and scale.
    """

    main_network: ClassVar[str] = "moda"
    # Tables computed from the settings; their length may differ in other files.
    optional_keys: ClassVar[tuple[str, ...]] = (
        *(f"temporal_body.short_layer.{name}" for name in _TABLES[:3]),
        "temporal_body.long_layer.embedding.pe",
    )
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "lip_R2": {"direction": "up", "unit": "share of the lips' variance that is explained"},
        "lip_L1": {"direction": "down", "unit": "% of the eye distance per coordinate"},
        "opening_error": {"direction": "down", "unit": "% of the eye distance"},
        "opening_r": {"direction": "up", "unit": "correlation of the lip opening"},
        "head_range": {"direction": "real", "unit": "standard deviation of yaw and pitch, degrees"},
        "Div_H": {"direction": "up", "unit": "distance of five samples, head, standardised"},
        "Div_E": {"direction": "up", "unit": "distance of five samples, eyes, standardised"},
        "Div_M": {"direction": "down", "unit": "distance of five samples, lips, standardised"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size, sound = cfg.model_params, cfg.audio_encoder
        width = {"mel": 4 * 80, "apc": 4 * cfg.apc.hidden_size, "wav2vec2": 768}[sound.kind]
        encoder = wav2vec2(None, sound.layers) if sound.kind == "wav2vec2" else None
        self.moda = MODANet(
            width * (2 * sound.around + 1),
            4 if sound.kind == "mel" else 2,
            body=size.body,
            subject_norm=size.subject_norm,
            length=size.max_seq_len,
            period=size.period,
            legacy_pe=size.legacy_pe,
            legacy_mask=size.legacy_mask,
            audio_encoder=encoder,
        )
        if encoder is not None and sound.freeze:
            encoder.requires_grad_(False)
        self.statistics: NormStats = NormStats()
        self.training_progress = 0.0

    def train(self, mode: bool = True) -> MODA:
        """A frozen sound encoder stays in eval mode: no dropout, no SpecAugment."""
        super().train(mode)
        if self.cfg.audio_encoder.freeze:
            for name, module in self.named_modules():
                if name.endswith("audio_encoder"):
                    module.eval()
        return self

    @classmethod
    def remap_state_dict(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        old = {"weight_g": "parametrizations.weight.original0",
               "weight_v": "parametrizations.weight.original1"}  # fmt: skip
        result = {}
        for key, value in state.items():
            if key in cls.optional_keys:
                continue
            head, _, name = key.rpartition(".")
            result[f"{head}.{old[name]}" if name in old else key] = value
        return result

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        hints = []
        if not any(key.startswith("temporal_body.long_layer.") for key in state):
            hints.append("model_params.body=short or lstm")
        if "subject_encoder_head.layers.1.running_mean" in state:
            hints.append("model_params.subject_norm=batch")
        if any(key.startswith("audio_encoder.") for key in state):
            hints.append("audio_encoder.kind=wav2vec2 and audio_encoder.weights=random")
        return f"Its names look like {', '.join(hints)}." if hints else ""

    # -- units ------------------------------------------------------------------------------------

    def initialize(self, data: Any) -> None:
        """Pretrained weights of wav2vec 2.0."""
        sound = self.cfg.audio_encoder
        if sound.kind == "wav2vec2" and sound.weights != "random":
            from talkingface.utils.paths import resolve

            loaded = wav2vec2(str(resolve(sound.weights)), sound.layers)
            self.network.audio_encoder.load_state_dict(loaded.state_dict())

    def units(self, subject_std: Tensor | None = None) -> dict[str, Tensor]:
        """Units of the network outputs by part: tensors that broadcast to (B,T,n).

        Args:
            subject_std: (B,361), for ``std_mode: subject``.

        Raises:
            WeightsError: the weights came from a file without standard deviations.
        """
        mode = self.cfg.model_params.std_mode
        if mode == "none":
            # Points are in sides of the official 768 px square, whose canonical face has the same
            # size in px. Translation and scale of the head refer to that square.
            points = torch.tensor([float(OFFICIAL_SIDE)])
            ratio = SIDE / OFFICIAL_SIDE
            head = torch.tensor([1.0, 1.0, 1.0, ratio, ratio, ratio, 1 / ratio])
            return {"lips": points, "eyes": points, "head": head, "torso": points}
        if mode == "subject":
            # At least 0.05 px or degrees, else errors of constant values would be amplified.
            parts = subject_std.clamp(min=0.05)[:, None].split(list(PARTS.values()), dim=-1)
            units = dict(zip(PARTS, parts, strict=True))
            scale = subject_std[:, None, 306:307].clamp(min=1e-3)
            units["head"] = torch.cat([units["head"][..., :6], scale], dim=-1)
            return units
        stats = self.statistics.of(self.cfg.model)
        return {
            "lips": torch.tensor([stats["lips"]]),
            "eyes": torch.tensor([stats["eyes"]]),
            "head": torch.tensor(stats["head"]),
            "torso": torch.tensor(stats["torso"]).repeat(18),
        }

    def _units_of(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        units = self.units(batch.get("subject_std"))
        return {key: value.to(batch["lips"]) for key, value in units.items()}

    # -- training ---------------------------------------------------------------------------------

    def forward_train(self, batch: Batch) -> Tensors:
        inside = batch["inside"] > 0
        noise = None
        if self.training:
            noise = torch.randn(*inside.shape, WIDTH, device=inside.device)
            self._protect_batch_statistics(batch["subject"])
        return self.moda(batch["sound"], batch["subject"], noise=noise, valid=inside)

    def _protect_batch_statistics(self, subject: Tensor) -> None:
        """A batch of one subject has no variance: it uses the running statistics, unchanged."""
        if self.cfg.model_params.subject_norm == "batch":
            several = bool((subject != subject[:1]).any())
            for name, module in self.named_modules():
                if isinstance(module, nn.BatchNorm1d) and "subject_encoder_head" in name:
                    module.train(several)

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        options, units = self.cfg.loss, self._units_of(batch)
        valid = batch["valid"][..., None]
        weights = (options.w_lip, options.w_eye, options.w_head, options.w_torso)
        sides = batch["torso_valid"].repeat_interleave(27, dim=1)[:, None]
        total = valid.new_zeros(())
        losses: dict[str, Tensor] = {}
        for part, weight in zip(PARTS, weights, strict=True):
            mask = valid * sides if part == "torso" else valid
            error = shared[part].float() - batch[part] / units[part]
            losses[part] = _mean(self._distance(error), mask)
            total = total + weight * losses[part]
            if options.velocity:
                both = mask[:, 1:] * mask[:, :-1]
                change = _mean(self._distance(error.diff(dim=1)), both)
                losses[f"{part}_velocity"] = change
                total = total + options.velocity * _VELOCITY[part] * change
        mu, logvar = shared["mu"].float(), shared["logvar"].float()
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).mean(dim=-1, keepdim=True)
        losses["kl"] = _mean(kl, valid)
        growth = 1.0  # constant in validation, so that its losses are comparable
        if self.training and options.kl_warmup:
            growth = min(1.0, self.training_progress / options.kl_warmup)
        total = total + options.w_kl * growth * losses["kl"]
        if not self.training:  # of the whole window, at temperature 0
            lips = batch["lips"] / units["lips"]
            error = _mean((shared["lips"].float() - lips).square(), valid)
            losses["lip_R2"] = 1 - error / _mean(lips.square(), valid).clamp(min=1e-6)
        return {"loss": total, **losses}

    def _distance(self, error: Tensor) -> Tensor:
        return error.abs() if self.cfg.loss.type == "l1" else error.square()

    # -- generation -------------------------------------------------------------------------------

    @torch.no_grad()
    def sequence(
        self,
        sound_of: Any,
        subject: np.ndarray,
        count: int,
        *,
        noise: Tensor | None = None,
        window: int | None = None,
        stride: int | None = None,
        subject_std: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Offsets for a sound of any length, in cross-faded windows: part -> (count,n).

        Args:
            sound_of: (start, stop) -> input of the network for these frames.
            subject: (478,3) as in the batch.
            noise: (count,128) standard normal times temperature, one sequence for the whole sound,
                so that overlapping windows agree; None: temperature 0.
            window, stride: in frames; None: ``data.window``, and half a window.
        """
        window = window or self.cfg.data.window
        stride = min(stride or max(1, window // 2), window)
        network: nn.Module = self.moda
        device = next(network.parameters()).device
        code = torch.from_numpy(subject)[None].to(device)

        def run(start: int, stop: int) -> dict[str, Tensor]:
            sound = torch.from_numpy(sound_of(start, stop))[None].to(device)
            valid = torch.ones(1, stop - start, dtype=torch.bool, device=device)
            drawn = None if noise is None else noise[None, start:stop].to(device)
            outputs = network(sound, code, noise=drawn, valid=valid)
            return {part: outputs[part][0].float() for part in PARTS}

        outputs = map_windows(run, count, window, stride)
        std = None if subject_std is None else torch.from_numpy(subject_std)[None]
        units = self.units(std)
        return {
            part: (values.cpu() * units[part].reshape(-1, units[part].shape[-1])).numpy()
            for part, values in outputs.items()
        }

    def evaluate_clip(self, clip: MappingClip, mismatched: MappingClip) -> ClipResult:
        count, std = len(clip), clip.template.std

        def predict(source: MappingClip, shift: int = 0, **more: Any) -> dict[str, np.ndarray]:
            def sound_of(start: int, stop: int) -> np.ndarray:
                whole = source.sound_of(0, len(source))
                if whole.ndim == 1:
                    return _cyclic_samples(whole, start + shift, stop + shift, source.fps)
                return whole[(np.arange(start, stop) + shift) % len(source)]

            return self.sequence(sound_of, clip.subject, count, subject_std=std, **more)

        generator = torch.Generator().manual_seed(0)
        samples = [
            predict(clip, noise=torch.randn(count, WIDTH, generator=generator))
            for _ in range(_SAMPLES)
        ]
        rows = {
            self.cfg.model: predict(clip),
            # The split may have a single clip.
            "shuffled audio": predict(mismatched, count // 2 if mismatched is clip else 0),
            "mean motion": {part: np.zeros_like(v) for part, v in clip.offsets.items()},
            "real": clip.offsets,
        }
        diversity = {"Div_H": 0.0, "Div_E": 0.0, "Div_M": 0.0}
        result = {
            name: {**compare_motion(motion, clip.offsets, clip.valid), **diversity}
            for name, motion in rows.items()
        }
        result[self.cfg.model].update(self._diversity(samples, std))
        return ClipResult(result)

    def _diversity(self, samples: list[dict[str, np.ndarray]], std: np.ndarray) -> dict[str, float]:
        units = self.units(torch.from_numpy(std)[None])

        def distance(part: str) -> float:
            values = [sample[part] / units[part].reshape(-1).numpy() for sample in samples]
            pairs = combinations(values, 2)
            return float(np.mean([np.linalg.norm(a - b, axis=-1).mean() for a, b in pairs]))

        return {"Div_H": distance("head"), "Div_E": distance("eyes"), "Div_M": distance("lips")}


def _cyclic_samples(wave: np.ndarray, start: int, stop: int, fps: float) -> np.ndarray:
    """Samples of frames ``start`` to ``stop`` of a sound that is repeated."""
    piece = samples_of(start, stop, fps)
    return wave[np.arange(piece.start, piece.stop) % len(wave)]


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over elements with mask 1."""
    mask = mask.expand_as(values)
    return (values * mask).sum() / mask.sum().clamp(min=1)


def _opening(lips: np.ndarray) -> np.ndarray:
    """Change of the gap between the inner lips, % of the eye distance."""
    return 100 / _EYE_DISTANCE * (lips[:, _BOTTOM] - lips[:, _TOP])


def compare_motion(
    motion: dict[str, np.ndarray], real: dict[str, np.ndarray], valid: np.ndarray
) -> dict[str, float]:
    """Compare generated with real offsets in frames with a face."""
    lips, real_lips = motion["lips"][valid], real["lips"][valid]
    variation = np.square(real_lips).sum()
    one, two = _opening(lips), _opening(real_lips)
    defined = one.std() > 1e-6 and two.std() > 1e-6
    return {
        "lip_R2": float(1 - np.square(lips - real_lips).sum() / max(variation, 1e-9)),
        "lip_L1": float(100 / _EYE_DISTANCE * np.abs(lips - real_lips).mean()),
        "opening_error": float(np.abs(one - two).mean()),
        # Undefined for constant values, e.g. the mean motion; reported as 0.
        "opening_r": float(np.corrcoef(one, two)[0, 1]) if defined else 0.0,
        "head_range": float(motion["head"][valid][:, :2].std(axis=0).mean()),
    }
