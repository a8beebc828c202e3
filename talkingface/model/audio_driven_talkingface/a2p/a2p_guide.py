"""A2PGuideVQ: tokens of key poses; A2PGuide: these tokens from sound (official code)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.data.scenes import POSE_SIZE
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
from talkingface.model.layers.windows import window_starts

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.a2p.a2p_dataset import SceneMotion

_SMOOTHING = 0.1  # added to each count of the unigram model
_STARTS_FROM = 16  # k-means uses at most this many vectors per code


def codec(cfg: Config) -> TemporalVertexCodec:
    """The codec of a configuration."""
    sizes = cfg.vq.model_dump(exclude={"motion_dim", "kmeans_iters"})
    return TemporalVertexCodec(cfg.vq.motion_dim or POSE_SIZE, **sizes)


class A2PGuideVQ(A2PModel):
    """Residual VQ-VAE of key poses. Trained on batches of ``A2PGuideVQDataset``."""

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
        """Initialise the codebooks with k-means over encoded key poses."""
        super().initialize(data)
        # Over many batches: the released code uses one batch, 80 vectors for 1024 codes.
        count = _STARTS_FROM * self.cfg.vq.codes
        parts: list[Tensor] = []
        epoch = 0
        while sum(map(len, parts)) < count and epoch < 50:
            for number in range(len(data)):
                item = data[epoch, number]
                keys = torch.from_numpy(item["keyframes"])[None]
                parts.append(self.codec.encoder(keys)[0][item["key_valid"] > 0])
            epoch += 1
        vectors = torch.cat(parts)
        vectors = vectors[torch.randperm(len(vectors))[:count]]  # of all scenes
        self.codec.quantizer.start(vectors, self.cfg.vq.kmeans_iters)

    def forward_train(self, batch: Batch) -> Tensors:
        poses, codes, commit = self.codec(batch["keyframes"])
        return {"poses": poses, "codes": codes, "commit": commit}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        poses, valid, decoded = batch["keyframes"], batch["key_valid"], shared["poses"]
        total = masked_mean(F.smooth_l1_loss(decoded, poses, reduction="none"), valid)
        losses = {"reconstruction": total}
        if not self.training:  # the best checkpoint has the lowest reconstruction loss
            losses["perplexity"] = _perplexity(shared["codes"][..., -1], self.cfg.vq.codes)
            return {"loss": total, **losses}
        losses["commit"] = shared["commit"]
        total = total + self.cfg.loss.commit * shared["commit"]
        if self.cfg.loss.velocity:
            both = valid[:, 1:] * valid[:, :-1]
            change = F.smooth_l1_loss(decoded.diff(dim=1), poses.diff(dim=1), reduction="none")
            losses["velocity"] = masked_mean(change, both)
            total = total + self.cfg.loss.velocity * losses["velocity"]
        return {"loss": total, **losses}

    @torch.no_grad()
    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        keys = clip.motions["pose"][:: self.cfg.data.guide_step]
        device = next(self.parameters()).device
        codes = self.codec.encode(torch.from_numpy(keys)[None].to(device))
        decoded = self.codec.decode(codes)[0].cpu().numpy()
        rows = {self.cfg.model: decoded, "mean motion": np.zeros_like(keys), "real": keys}
        result = {}
        for name, values in rows.items():
            squares = np.square(values - keys)
            result[name] = {
                "error": float(np.sqrt(squares.mean())),
                "R2": float(1 - squares.sum() / max(np.square(keys).sum(), 1e-9)),
            }
        return ClipResult(result, details={"codes": self.codes_of(clip)})

    @torch.no_grad()
    def codes_of(self, clip: SceneMotion) -> Tensor:
        """(T,depth) codes of the key poses at every offset of a clip."""
        step, device = self.cfg.data.guide_step, next(self.parameters()).device
        codes = []
        for offset in range(min(step, len(clip))):
            keys = torch.from_numpy(clip.motions["pose"][offset::step])[None]
            codes.append(self.codec.encode(keys.to(device))[0].cpu())
        return torch.cat(codes)

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        codes, count = torch.cat([r.details["codes"] for r in results]), self.cfg.vq.codes
        shares = ", ".join(f"{len(stage.unique()) / count:.0%}" for stage in codes.T)
        text = f"{shares} of the {count} codes of each stage, in {len(codes)} poses"
        return {**super().result_notes(results), "codes_used": text}


def _perplexity(codes: Tensor, count: int) -> Tensor:
    """exp(entropy) of the codes of a batch: the effective number of used codes."""
    share = torch.bincount(codes.flatten(), minlength=count).float()
    share = share / share.sum()
    return torch.exp(-(share * torch.log(share + 1e-10)).sum())


class A2PGuide(A2PModel):
    """Tokens of key poses from the sound of both persons. Trained on ``A2PGuideDataset``.

    The baseline ``unigram`` holds the frequency of each token in the training data, by stage.
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
        self.guide = GuideTransformer(
            cfg.vq.codes,
            cfg.vq.depth,
            max_frames=cfg.data.max_seq_length,
            guide_step=cfg.data.guide_step,
            **cfg.model_params.model_dump(exclude={"top_p"}),
            **frontend_arguments(cfg),
        )
        self.unigram: Tensor | None = None  # (depth, codes) log probabilities

    @classmethod
    def settings_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        places = [int(m[1]) for k in state if (m := re.match(r"pre_audio\.(\d+)\.", k))]
        # 18 modules per stack: six convolutions with activation and dropout. The released files do
        # not store the number of stacks.
        return {"model_params.num_audio_layers": max(places) // 18} if places else {}

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        count = self.settings_of(state).get("model_params.num_audio_layers")
        if count in (None, self.cfg.model_params.num_audio_layers):
            return ""
        return f"The names of its weights fit model_params.num_audio_layers={count}."

    @property
    def tokenizer(self) -> TemporalVertexCodec:
        return self.components["vq"].network

    def initialize(self, data: Any) -> None:
        """Count the tokens of the training scenes for the unigram baseline."""
        super().initialize(data)
        # All poses of the training scenes: a baseline from few poses would be too weak.
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
        """(B,K,depth) -> input tokens, beginning with the start token, and target tokens (B,N)."""
        target = codes.flatten(1)
        start = torch.full_like(target[:, :1], self.cfg.vq.codes)
        return torch.cat([start, target[:, :-1]], dim=1), target

    def forward_train(self, batch: Batch) -> Tensors:
        codes = self.tokenizer.encode(batch["keyframes"])
        tokens, target = self._streams(codes)
        keep = None
        if self.training:
            keep = torch.rand(len(codes), device=codes.device) >= self.cfg.loss.p_drop
        return {"logits": self.guide(tokens, batch["audio"], keep).float(), "target": target}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        logits, target = shared["logits"], shared["target"]
        # Key poses after the end of a scene do not count (the released code counts them).
        valid = batch["key_valid"].repeat_interleave(self.cfg.vq.depth, dim=1)
        count = valid.sum().clamp(min=1)
        smoothing = self.cfg.loss.label_smoothing if self.training else 0.0
        errors = F.cross_entropy(
            logits.transpose(1, 2), target, label_smoothing=smoothing, reduction="none"
        )
        correct = (logits.argmax(dim=-1) == target) * valid
        accuracy = (correct.sum() / count).detach()
        return {"loss": (errors * valid).sum() / count, "accuracy": accuracy}

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
        """Tokens (samples,K,depth) for a sound of any length.

        A long sound is processed in windows that overlap by half. The tokens of the overlap are
        kept, and the rest of the window is sampled after them.

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
        result = torch.zeros(samples, 0, cfg.vq.depth, dtype=torch.int64, device=device)
        for start in window_starts(keys, window, max(1, window // 2)):
            part = padded[start * step * frame : (start + window) * step * frame]
            features = network.encode_sound(sound_tensor(part, device)).expand(samples, -1, -1)
            given = result[:, start:]
            tokens = network.generate(
                network.condition(features, window * step),
                window,
                top_p=cfg.model_params.top_p if top_p is None else top_p,
                generator=generator,
                given=given if given.shape[1] else None,
            )
            result = torch.cat([result[:, :start], tokens], dim=1)
        return result

    @torch.no_grad()
    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        device = next(self.parameters()).device
        keys = torch.from_numpy(clip.motions["pose"][:: self.cfg.data.guide_step])[None].to(device)
        codes = self.tokenizer.encode(keys)
        tokens, target = self._streams(codes)

        def scores(sound: np.ndarray) -> dict[str, float]:
            logits = self.guide(tokens, sound_tensor(sound, device)).float()
            poses = self.tokenizer.decode(self.tokens(sound, len(clip), top_p=0.0))
            return _token_scores(logits, target, poses[:, : keys.shape[1]], keys)

        rows = {
            self.cfg.model: scores(clip.sound),
            "shuffled audio": scores(mismatched_sound(clip.sound, mismatched.sound)),
        }
        if self.unigram is not None:  # official weights hold none
            logits = self.unigram.to(device).repeat(keys.shape[1], 1)[None]
            poses = self.tokenizer.decode(logits.argmax(dim=-1).view_as(codes))
            rows["unigram"] = _token_scores(logits, target, poses, keys)
        return ClipResult(rows)


def _token_scores(logits: Tensor, target: Tensor, poses: Tensor, keys: Tensor) -> dict[str, float]:
    return {
        "cross_entropy": float(F.cross_entropy(logits[0], target[0])),
        "accuracy": float((logits.argmax(dim=-1) == target).float().mean()),
        "key_error": float((poses - keys).square().mean().sqrt()),
    }
