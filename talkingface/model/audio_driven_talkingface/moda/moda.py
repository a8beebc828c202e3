"""MODA: one mapping from voice to lips, eyes, head and torso (DreamtaleCore/MODA)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from talkingface.data.dataprocess.moda.files import OFFICIAL_SIDE, SIDE
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
    and the factor of the size.
    """

    main_network: ClassVar[str] = "moda"
    # Tables that follow from the settings; files of another length hold longer ones.
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
        """A frozen sound encoder stays as at inference: no dropout, no SpecAugment."""
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
        """What 1 of each network output is, by part, to be broadcast to (B,T,n).

        Args:
            subject_std: (B,361), for ``std_mode: subject``.

        Raises:
            WeightsError: weights without their units; they came from elsewhere.
        """
        mode = self.cfg.model_params.std_mode
        if mode == "none":
            # Shares of the 768 px square of the released preparation, whose canonical face is as
            # large as ours; the head's place and size refer to that square.
            points = torch.tensor([float(OFFICIAL_SIDE)])
            small = SIDE / OFFICIAL_SIDE
            head = torch.tensor([1.0, 1.0, 1.0, small, small, small, 1 / small])
            return {"lips": points, "eyes": points, "head": head, "torso": points}
        if mode == "subject":
            # A value that never moves would be blown up: at least 0.05 px or degrees.
            parts = subject_std.clamp(min=0.05)[:, None].split(list(PARTS.values()), dim=-1)
            made = dict(zip(PARTS, parts, strict=True))
            made["head"] = torch.cat(
                [made["head"][..., :6], subject_std[:, None, 306:307].clamp(min=1e-3)], dim=-1
            )
            return made
        stats = self.statistics.of(self.cfg.model)
        return {
            "lips": torch.tensor([stats["lips"]]),
            "eyes": torch.tensor([stats["eyes"]]),
            "head": torch.tensor(stats["head"]),
            "torso": torch.tensor(stats["torso"]).repeat(18),
        }

    def _units_of(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        made = self.units(batch.get("subject_std"))
        return {key: value.to(batch["lips"]) for key, value in made.items()}

    # -- training ---------------------------------------------------------------------------------

    def forward_train(self, batch: Batch) -> Tensors:
        inside = batch["inside"] > 0
        noise = None
        if self.training:
            noise = torch.randn(*inside.shape, WIDTH, device=inside.device)
            self._guard_statistics(batch["subject"])
        return self.moda(batch["sound"], batch["subject"], noise=noise, valid=inside)

    def _guard_statistics(self, subject: Tensor) -> None:
        """Batch statistics of one subject have no variance (spec B4): such batches use and leave
        the known ones."""
        if self.cfg.model_params.subject_norm == "batch":
            several = bool((subject != subject[:1]).any())
            for name, module in self.named_modules():
                if isinstance(module, nn.BatchNorm1d) and "subject_encoder_head" in name:
                    module.train(several)

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        made = shared
        options, units = self.cfg.loss, self._units_of(batch)
        seen = batch["valid"][..., None]
        weights = {
            "lips": options.w_lip,
            "eyes": options.w_eye,
            "head": options.w_head,
            "torso": options.w_torso,
        }
        sides = batch["torso_valid"].repeat_interleave(27, dim=1)[:, None]
        total = seen.new_zeros(())
        losses: dict[str, Tensor] = {}
        for part, weight in weights.items():
            wanted = batch[part] / units[part]
            mask = seen * sides if part == "torso" else seen
            error = made[part].float() - wanted
            losses[part] = _mean(self._distance(error), mask)
            total = total + weight * losses[part]
            if options.velocity:
                both = mask[:, 1:] * mask[:, :-1]
                change = _mean(self._distance(error.diff(dim=1)), both)
                losses[f"{part}_velocity"] = change
                total = total + options.velocity * _VELOCITY[part] * change
        mu, logvar = made["mu"].float(), made["logvar"].float()
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).mean(dim=-1, keepdim=True)
        losses["kl"] = _mean(kl, seen)
        growth = min(1.0, self.training_progress / options.kl_warmup) if options.kl_warmup else 1.0
        growth = growth if self.training else 1.0  # the same criterion in all validations
        total = total + options.w_kl * growth * losses["kl"]
        if not self.training:  # of the whole window, at temperature 0
            mouth = batch["lips"] / units["lips"]
            missed = _mean((made["lips"].float() - mouth).square(), seen)
            losses["lip_R2"] = 1 - missed / _mean(mouth.square(), seen).clamp(min=1e-6)
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
        """Offsets of a sound of any length: part -> (count,n), cross-faded windows.

        Args:
            sound_of: (start, stop) -> input of the network for these frames.
            subject: (478,3) as in the batch.
            noise: (count,128) standard normal times temperature: one sequence for the whole sound,
                so that overlapping windows agree; None: temperature 0.
            window, stride: in frames; None: the window of the training, and half of it.
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
            made = network(sound, code, noise=drawn, valid=valid)
            return {part: made[part][0].float() for part in PARTS}

        made = map_windows(run, count, window, stride)
        std = None if subject_std is None else torch.from_numpy(subject_std)[None]
        units = self.units(std)
        return {
            part: (values.cpu() * units[part].reshape(-1, units[part].shape[-1])).numpy()
            for part, values in made.items()
        }

    def evaluate_clip(self, clip: MappingClip, mismatched: MappingClip) -> ClipResult:
        count, std = len(clip), clip.template.std

        def spoken(source: MappingClip, move: int = 0, **more: Any) -> dict[str, np.ndarray]:
            def sound_of(start: int, stop: int) -> np.ndarray:
                whole = source.sound_of(0, len(source))
                rows = (np.arange(start, stop) + move) % len(source)
                return (
                    whole[rows] if whole.ndim == 2 else _wrapped(whole, start, stop, source, move)
                )

            return self.sequence(sound_of, clip.subject, count, subject_std=std, **more)

        own = spoken(clip)
        shuffled = spoken(clip, count // 2) if mismatched is clip else spoken(mismatched)
        generator = torch.Generator().manual_seed(0)
        samples = [
            spoken(clip, noise=torch.randn(count, WIDTH, generator=generator))
            for _ in range(_SAMPLES)
        ]
        still = {part: np.zeros_like(values) for part, values in clip.offsets.items()}
        rows = {
            self.cfg.model: own,
            "shuffled audio": shuffled,
            "mean motion": still,
            "real": clip.offsets,
        }
        nothing = {"Div_H": 0.0, "Div_E": 0.0, "Div_M": 0.0}
        result = {
            name: {**compare_motion(made, clip.offsets, clip.valid), **nothing}
            for name, made in rows.items()
        }
        result[self.cfg.model].update(self._diversity(samples, std))
        return ClipResult(result)

    def _diversity(self, samples: list[dict[str, np.ndarray]], std: np.ndarray) -> dict[str, float]:
        units = self.units(torch.from_numpy(std)[None])

        def apart(part: str) -> float:
            made = [sample[part] / units[part].reshape(-1).numpy() for sample in samples]
            pairs = combinations(made, 2)
            return float(np.mean([np.linalg.norm(a - b, axis=-1).mean() for a, b in pairs]))

        return {"Div_H": apart("head"), "Div_E": apart("eyes"), "Div_M": apart("lips")}


def _wrapped(wave: np.ndarray, start: int, stop: int, clip: MappingClip, move: int) -> np.ndarray:
    """Samples of frames of a sound that begins ``move`` frames later and goes on at its end."""
    from talkingface.data.dataprocess.moda.sound import samples_of

    piece = samples_of(start + move, stop + move, clip.fps)
    return wave[np.arange(piece.start, piece.stop) % len(wave)]


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over unmasked elements."""
    mask = mask.expand_as(values)
    return (values * mask).sum() / mask.sum().clamp(min=1)


def _opening(lips: np.ndarray) -> np.ndarray:
    """Change of the gap between the inner lips, % of the eye distance."""
    return 100 / _EYE_DISTANCE * (lips[:, _BOTTOM] - lips[:, _TOP])


def compare_motion(
    made: dict[str, np.ndarray], real: dict[str, np.ndarray], valid: np.ndarray
) -> dict[str, float]:
    """Measures of generated offsets against real ones, over frames with a face."""
    lips, wanted = made["lips"][valid], real["lips"][valid]
    varied = np.square(wanted).sum()
    one, two = _opening(lips), _opening(wanted)
    both = one.std() > 1e-6 and two.std() > 1e-6
    return {
        "lip_R2": float(1 - np.square(lips - wanted).sum() / max(varied, 1e-9)),
        "lip_L1": float(100 / _EYE_DISTANCE * np.abs(lips - wanted).mean()),
        "opening_error": float(np.abs(one - two).mean()),
        # The mean motion has no correlation with anything.
        "opening_r": float(np.corrcoef(one, two)[0, 1]) if both else 0.0,
        "head_range": float(made["head"][valid][:, :2].std(axis=0).mean()),
    }
