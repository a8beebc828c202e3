"""A2PGuideVQ and A2PGuide: key poses as tokens, tokens from sound (official code)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.data.dataprocess.a2p.files import POSE_SIZE
from talkingface.model.abilities import ClipResult, mismatched_sound
from talkingface.model.abstract_talkingface import Batch, Tensors
from talkingface.model.audio_driven_talkingface.a2p.a2p_common import (
    A2PModel,
    frontend_arguments,
    masked_mean,
    sound_tensor,
)
from talkingface.model.audio_driven_talkingface.a2p.a2p_guide_networks import (
    GuideTransformer,
    TemporalVertexCodec,
)

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.a2p.a2p_dataset import SceneMotion

_SMOOTHING = 0.1  # of the unigram's counts
_STARTS_FROM = 16  # vectors per code that the k-means sees, at most


def codec(cfg: Config) -> TemporalVertexCodec:
    """The codec of a configuration."""
    size = cfg.vq
    return TemporalVertexCodec(
        size.motion_dim or POSE_SIZE,
        size.width,
        size.codes,
        size.depth,
        decay=size.decay,
        threshold=size.threshold,
        legacy_expiry=size.legacy_expiry,
    )


class A2PGuideVQ(A2PModel):
    """Residual VQ-VAE of key poses. Batch of ``A2PGuideVQDataset``."""

    kind: ClassVar[str] = "pose"
    main_network: ClassVar[str] = "codec"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "error": {"direction": "down", "unit": "root mean square, standard deviations of the data"},
        "R2": {"direction": "up", "unit": "share of the key poses' variance that is explained"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.codec = codec(cfg)

    @torch.no_grad()
    def initialize(self, data: Any) -> None:
        """Start the codebooks from k-means over key poses."""
        super().initialize(data)
        # From many batches: one of the released code's has 80 vectors for 1024 codes.
        wanted = _STARTS_FROM * self.cfg.vq.codes
        found: list[Tensor] = []
        rounds = 0
        while sum(map(len, found)) < wanted and rounds < 50:
            for number in range(len(data)):
                item = data[rounds, number]
                keys = torch.from_numpy(item["keyframes"])[None]
                found.append(self.codec.encoder(keys)[0][item["key_valid"] > 0])
            rounds += 1
        every = torch.cat(found)
        some = every[torch.randperm(len(every))[:wanted]]  # of all scenes
        self.codec.quantizer.start(some, self.cfg.vq.kmeans_iters)

    def forward_train(self, batch: Batch) -> Tensors:
        poses, codes, commit = self.codec(batch["keyframes"])
        return {"poses": poses, "codes": codes, "commit": commit}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        poses, seen, made = batch["keyframes"], batch["key_valid"], shared["poses"]
        losses = {
            "reconstruction": masked_mean(F.smooth_l1_loss(made, poses, reduction="none"), seen)
        }
        total = losses["reconstruction"]
        if not self.training:  # checkpoints are compared by their reconstruction alone
            losses["perplexity"] = _perplexity(shared["codes"][..., -1], self.cfg.vq.codes)
            return {"loss": total, **losses}
        losses["commit"] = shared["commit"]
        total = total + self.cfg.loss.commit * shared["commit"]
        if self.cfg.loss.velocity:
            both = seen[:, 1:] * seen[:, :-1]
            change = F.smooth_l1_loss(made.diff(dim=1), poses.diff(dim=1), reduction="none")
            losses["velocity"] = masked_mean(change, both)
            total = total + self.cfg.loss.velocity * losses["velocity"]
        return {"loss": total, **losses}

    @torch.no_grad()
    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        keys = clip.motions["pose"][:: self.cfg.data.guide_step]
        device = next(self.parameters()).device
        codes = self.codec.encode(torch.from_numpy(keys)[None].to(device))
        made = self.codec.decode(codes)[0]
        rows = {
            self.cfg.model: made.cpu().numpy(),
            "mean motion": np.zeros_like(keys),
            "real": keys,
        }
        result = {}
        for name, values in rows.items():
            missed = np.square(values - keys)
            result[name] = {
                "error": float(np.sqrt(missed.mean())),
                "R2": float(1 - missed.sum() / max(np.square(keys).sum(), 1e-9)),
            }
        return ClipResult(result, details={"codes": self.codes_of(clip)})

    @torch.no_grad()
    def codes_of(self, clip: SceneMotion) -> Tensor:
        """(T,depth) codes of the key poses at every offset of a clip."""
        step, device = self.cfg.data.guide_step, next(self.parameters()).device
        found = []
        for offset in range(min(step, len(clip))):
            keys = torch.from_numpy(clip.motions["pose"][offset::step])[None]
            found.append(self.codec.encode(keys.to(device))[0].cpu())
        return torch.cat(found)

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        every, count = torch.cat([r.details["codes"] for r in results]), self.cfg.vq.codes
        used = [len(every[:, depth].unique()) / count for depth in range(every.shape[1])]
        shares = ", ".join(f"{share:.0%}" for share in used)
        text = f"{shares} of the {count} codes of each stage, in {len(every)} poses"
        return {**super().result_notes(results), "codes_used": text}


def _perplexity(codes: Tensor, count: int) -> Tensor:
    """exp(entropy) of the codes of a batch: how many are in use."""
    share = torch.bincount(codes.flatten(), minlength=count).float()
    share = share / share.sum()
    return torch.exp(-(share * torch.log(share + 1e-10)).sum())


class A2PGuide(A2PModel):
    """Tokens of key poses from the sound of both persons. Batch of ``A2PGuideDataset``.

    ``unigram`` keeps how often each token occurs in training, by depth: the baseline.
    """

    kind: ClassVar[str] = "pose"
    main_network: ClassVar[str] = "guide"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "cross_entropy": {"direction": "down", "unit": "nats per token"},
        "accuracy": {"direction": "up", "unit": "share of tokens that are the most probable one"},
        "key_error": {"direction": "down", "unit": "root mean square of greedy key poses"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.guide = GuideTransformer(
            cfg.vq.codes,
            cfg.vq.depth,
            size.width,
            size.layers,
            size.heads,
            size.ff,
            size.dropout,
            cfg.data.max_seq_length,
            size.num_audio_layers,
            cfg.data.guide_step,
            size.pad_audio,
            size.legacy_positions,
            **frontend_arguments(cfg),
        )
        self.unigram: Tensor | None = None  # (depth, codes) log probabilities

    @classmethod
    def settings_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        places = [int(m[1]) for k in state if (m := re.match(r"pre_audio\.(\d+)\.", k))]
        # Six convolutions per stack, each of three modules; the released code does not store it.
        return {"model_params.num_audio_layers": max(places) // 18} if places else {}

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        count = self.settings_of(state).get("model_params.num_audio_layers")
        if count in (None, self.cfg.model_params.num_audio_layers):
            return ""
        return f"Its names look like model_params.num_audio_layers={count}."

    @property
    def tokenizer(self) -> TemporalVertexCodec:
        return self.components["vq"].network

    def initialize(self, data: Any) -> None:
        """Count the tokens of the training scenes."""
        super().initialize(data)
        # Every pose of the training scenes once: a baseline of few poses would be too weak.
        counts = torch.full((self.cfg.vq.depth, self.cfg.vq.codes), _SMOOTHING)
        for keys in data.key_poses():
            codes = self.tokenizer.encode(torch.from_numpy(keys)[None])[0]
            for depth in range(counts.shape[0]):
                counts[depth] += torch.bincount(codes[:, depth], minlength=counts.shape[1])
        self.unigram = (counts / counts.sum(dim=1, keepdim=True)).log()

    def other_parameter(self) -> dict[str, Any]:
        return {"unigram": self.unigram}

    def load_other_parameter(self, values: Mapping[str, Any]) -> None:
        if values.get("unigram") is not None:
            self.unigram = torch.as_tensor(values["unigram"])

    # -- training ----------------------------------------------------------------------------------

    def _streams(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """(B,K,depth) -> what is given, beginning with the start token, and what is wanted."""
        wanted = codes.flatten(1)
        start = torch.full_like(wanted[:, :1], self.cfg.vq.codes)
        return torch.cat([start, wanted[:, :-1]], dim=1), wanted

    def forward_train(self, batch: Batch) -> Tensors:
        codes = self.tokenizer.encode(batch["keyframes"])
        given, wanted = self._streams(codes)
        keep = None
        if self.training:
            keep = torch.rand(len(codes), device=codes.device) >= self.cfg.loss.p_drop
        return {"logits": self.guide(given, batch["audio"], keep).float(), "wanted": wanted}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        logits, wanted = shared["logits"], shared["wanted"]
        # Key poses behind the end of a scene do not count (upstream counts them).
        seen = batch["key_valid"].repeat_interleave(self.cfg.vq.depth, dim=1)
        smoothing = self.cfg.loss.label_smoothing if self.training else 0.0
        errors = F.cross_entropy(
            logits.transpose(1, 2), wanted, label_smoothing=smoothing, reduction="none"
        )
        loss = (errors * seen).sum() / seen.sum().clamp(min=1)
        right = ((logits.argmax(dim=-1) == wanted) * seen).sum() / seen.sum().clamp(min=1)
        return {"loss": loss, "accuracy": right.detach()}

    # -- generation --------------------------------------------------------------------------------

    @torch.no_grad()
    def tokens(
        self,
        sound: np.ndarray,
        frames: int,
        *,
        samples: int = 1,
        seed: int = 0,
        top_p: float | None = None,
    ) -> Tensor:
        """Tokens (samples,K,depth) of a sound of any length.

        A long sound is taken in windows that overlap by half; the tokens of the overlap are kept
        and the next ones follow from them.

        Args:
            sound: (S,2) standardised.
        """
        network, cfg = self.guide, self.cfg
        step = cfg.data.guide_step
        keys = math.ceil(frames / step)
        window = min(max(1, cfg.data.max_seq_length // step), keys)
        device = next(network.parameters()).device
        frame = round(network.rate / network.fps)
        generator = torch.Generator(device=device).manual_seed(seed)
        padded = np.zeros((keys * step * frame, 2), np.float32)
        padded[: len(sound)] = sound[: len(padded)]
        made = torch.zeros(samples, 0, cfg.vq.depth, dtype=torch.int64, device=device)
        start = 0
        while True:
            stop = start + window
            part = padded[start * step * frame : stop * step * frame]
            features = network.encode_sound(sound_tensor(part, device)).expand(samples, -1, -1)
            given = made[:, start:]
            tokens = network.generate(
                network.condition(features, window * step),
                window,
                top_p=cfg.model_params.top_p if top_p is None else top_p,
                generator=generator,
                given=given if given.shape[1] else None,
            )
            made = torch.cat([made[:, :start], tokens], dim=1)
            if stop >= keys:
                return made
            start = min(start + max(1, window // 2), keys - window)

    @torch.no_grad()
    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        device = next(self.parameters()).device
        keys = torch.from_numpy(clip.motions["pose"][:: self.cfg.data.guide_step])[None].to(device)
        codes = self.tokenizer.encode(keys)
        given, wanted = self._streams(codes)

        def scores(sound: np.ndarray) -> dict[str, float]:
            logits = self.guide(given, sound_tensor(sound, device)).float()
            poses = self.tokenizer.decode(self.tokens(sound, len(clip), top_p=0.0))
            return _of_tokens(logits, wanted, poses[:, : keys.shape[1]], keys)

        rows = {
            self.cfg.model: scores(clip.sound),
            "shuffled audio": scores(mismatched_sound(clip.sound, mismatched.sound)),
        }
        if self.unigram is not None:  # official weights come without
            chance = self.unigram.to(device).repeat(keys.shape[1], 1)[None]
            usual = chance.argmax(dim=-1).view_as(codes)
            rows["unigram"] = _of_tokens(chance, wanted, self.tokenizer.decode(usual), keys)
        return ClipResult(rows)


def _of_tokens(logits: Tensor, wanted: Tensor, poses: Tensor, keys: Tensor) -> dict[str, float]:
    return {
        "cross_entropy": float(F.cross_entropy(logits[0], wanted[0])),
        "accuracy": float((logits.argmax(dim=-1) == wanted).float().mean()),
        "key_error": float((poses - keys).square().mean().sqrt()),
    }
