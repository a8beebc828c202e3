"""MODA: mapping network with dual attention, and the facial composer (DreamtaleCore/MODA).

The ``state_dict`` names are official. The layers are PyTorch's transformer layers, but the forward
pass is written here: aligned attention to the sound has one key per frame and is a linear map, all
other attention uses the fused kernels, causal attention block by block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 128  # channels of sound, subject and both branches
MESH = 478 * 3
LIPS, EYES, HEAD, TORSO = 40 * 3, 60 * 3, 7, 18 * 3
PARTS = {"lips": LIPS, "eyes": EYES, "head": HEAD, "torso": TORSO}
SLOPE = 0.2
_HEADS, _LAYERS, _DROPOUT = 4, 3, 0.1
_BIAS = 2.0**-8  # slope of the temporal bias, one for all heads (official)
_BLOCK = 128  # queries per block of a causal attention


class MLP(nn.Module):
    """``n_layers`` linear layers with normalisation and leaky ReLU between them.

    Args:
        norm: ``batch``, ``layer`` or None.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int, n_layers: int, norm: str | None = "batch"
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(n_layers - 1):
            layers.append(nn.Linear(inputs, hidden))
            if norm:
                layers.append(nn.BatchNorm1d(hidden) if norm == "batch" else nn.LayerNorm(hidden))
            layers.append(nn.LeakyReLU(SLOPE))
            inputs = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, 0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(..., inputs) -> (..., outputs).

        Args:
            valid: (...) bool; other rows give 0 and are not in the batch statistics.
        """
        flat = x.reshape(-1, x.shape[-1])
        if valid is None:
            return self.layers(flat).view(*x.shape[:-1], -1)
        keep = valid.reshape(-1)
        values = self.layers(flat[keep])
        result = values.new_zeros(len(flat), values.shape[1])
        result[keep] = values
        return result.view(*x.shape[:-1], -1)


def positions(count: int, period: int | None = None) -> Tensor:
    """(count, 128) sinusoidal code of the frame number, or of its remainder modulo ``period``."""
    place = torch.arange(count)
    place = (place if period is None else place % period).float()[:, None]
    rate = torch.pow(10000.0, -torch.arange(0, WIDTH, 2) / WIDTH)
    table = torch.zeros(count, WIDTH)
    table[:, 0::2], table[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
    return table


def temporal_bias(rows: Tensor, columns: Tensor, period: int) -> Tensor:
    """(R,C): -m * floor((i - j) / q) for the past and the present, -inf for the future."""
    apart = rows[:, None] - columns[None]
    bias = -_BIAS * torch.div(apart, period, rounding_mode="floor").float()
    return bias.masked_fill(apart < 0, float("-inf"))


class _Positions(nn.Module):
    """Holds the official buffer ``pe``; the forward pass computes the values instead."""

    def __init__(self, table: Tensor, dims: int) -> None:
        super().__init__()
        # [1,n,128] for the periodic code, [n,1,128] for the other.
        self.register_buffer("pe", table[None] if dims == 0 else table[:, None])


def _project(mha: nn.MultiheadAttention, x: Tensor, part: int) -> Tensor:
    """Query (0), key (1) or value (2) of (B,T,128), as (B,heads,T,d)."""
    rows = slice(part * WIDTH, (part + 1) * WIDTH)
    y = F.linear(x, mha.in_proj_weight[rows], mha.in_proj_bias[rows])
    return y.unflatten(-1, (mha.num_heads, -1)).transpose(1, 2)


def _joined(mha: nn.MultiheadAttention, y: Tensor) -> Tensor:
    return mha.out_proj(y.transpose(1, 2).flatten(-2))


def attend(
    mha: nn.MultiheadAttention,
    x: Tensor,
    memory: Tensor,
    mask: Tensor | None = None,
    blocks: list[Tensor] | None = None,
) -> Tensor:
    """Fused attention.

    Args:
        mask: added to the scores, or bool: True for keys that are used; broadcast to
            (B,heads,T,T).
        blocks: causal attention: bias of the scores per block of queries, for the keys up to its
            end; later keys are not used.
    """
    query, key, value = _project(mha, x, 0), _project(mha, memory, 1), _project(mha, memory, 2)
    drop = mha.dropout if mha.training else 0.0
    attention = F.scaled_dot_product_attention
    if blocks is None:
        return _joined(mha, attention(query, key, value, mask, drop))
    parts, start = [], 0
    for bias in blocks:
        rows, stop = slice(start, start + len(bias)), bias.shape[1]
        part = attention(query[:, :, rows], key[:, :, :stop], value[:, :, :stop], bias, drop)
        parts.append(part)
        start = rows.stop
    return _joined(mha, torch.cat(parts, dim=2))


def attend_aligned(mha: nn.MultiheadAttention, x: Tensor, memory: Tensor) -> Tensor:
    """Attention of each frame to the sound of the same frame: a softmax over one element."""
    value = _project(mha, memory, 2)
    if mha.training and mha.dropout:
        weight = value.new_ones(value.shape[:3])
        value = value * F.dropout(weight, mha.dropout)[..., None]
    return _joined(mha, value)


def _feed_forward(layer: nn.Module, x: Tensor) -> Tensor:
    return layer.linear2(layer.dropout(layer.activation(layer.linear1(x))))


def _blocks(count: int, device: torch.device, period: int | None) -> list[Tensor]:
    """Biases of causal attention per block of queries; period None: 0 for the past."""
    frames = torch.arange(count, device=device)
    result = []
    for rows in frames.split(_BLOCK):
        columns = frames[: int(rows[-1]) + 1]
        result.append(temporal_bias(rows, columns, period or count + 1))
    return result


def _decoder_layer() -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(WIDTH, _HEADS, WIDTH, _DROPOUT, batch_first=True)


class TemporalAlignedBlock(nn.Module):
    """SpecAttn: biased causal self-attention of the subject code, and attention to the sound."""

    def __init__(self, length: int, period: int) -> None:
        super().__init__()
        self.period = period
        self.decoder = nn.TransformerDecoder(_decoder_layer(), _LAYERS)
        repeated = period * (length // period + 1)
        self.ppe = _Positions(positions(repeated, period), 0)
        frames = torch.arange(length)
        self.register_buffer("biased_mask", temporal_bias(frames, frames, period)[None])
        self.register_buffer("memory_mask", ~torch.eye(length, dtype=torch.bool))
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, subject: Tensor, sound: Tensor) -> Tensor:
        """(B,T,128) and (B,T,128) -> (B,T,128); frame t depends on nothing after t."""
        count = subject.shape[1]
        x = self.dropout(subject + positions(count, self.period).to(subject))
        blocks = _blocks(count, x.device, self.period)
        for layer in self.decoder.layers:
            x = layer.norm1(x + layer.dropout1(attend(layer.self_attn, x, x, blocks=blocks)))
            x = layer.norm2(x + layer.dropout2(attend_aligned(layer.multihead_attn, x, sound)))
            x = layer.norm3(x + layer.dropout3(_feed_forward(layer, x)))
        return x


class TemporalVAEBlock(nn.Module):
    """ProbAttn: a variational autoencoder over time with one latent per frame.

    Args:
        legacy_pe: index the positional table by the position in the batch, as in the released code.
        legacy_mask: as in the released code, add 1 to the decoder's scores of future frames
            instead of excluding them.
    """

    def __init__(self, length: int, legacy_pe: bool, legacy_mask: bool) -> None:
        super().__init__()
        self.legacy_pe, self.legacy_mask = legacy_pe, legacy_mask
        self.embedding = _Positions(positions(length), 1)
        encoder = nn.TransformerEncoderLayer(WIDTH, _HEADS, WIDTH, _DROPOUT, batch_first=True)
        self.encoder = nn.TransformerEncoder(encoder, _LAYERS, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(_decoder_layer(), _LAYERS)
        self.out = nn.Sequential(nn.Linear(WIDTH, WIDTH))
        self.to_mu = nn.Linear(WIDTH, WIDTH)
        self.to_logvar = nn.Linear(WIDTH, WIDTH)
        self.decode_latent = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(
        self, subject: Tensor, sound: Tensor, noise: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B,T,128) each -> output, mean and log variance of the latents, (B,T,128) each.

        Args:
            noise: (B,T,128) standard normal times temperature; None: the means.
            valid: (B,T) bool, frames that are no padding.
        """
        count = subject.shape[1]
        if self.legacy_pe:
            code = positions(len(subject))[:, None]
        else:
            code = positions(count)[None]
        u = self.dropout(subject + code.to(subject)) + sound
        mask = None if valid is None else valid[:, None, None]
        h = u
        for layer in self.encoder.layers:
            h = layer.norm1(h + layer.dropout1(attend(layer.self_attn, h, h, mask)))
            h = layer.norm2(h + layer.dropout2(_feed_forward(layer, h)))
        mu, logvar = self.to_mu(h), self.to_logvar(h)
        z = mu if noise is None else mu + torch.exp(0.5 * logvar) * noise
        memory = self.decode_latent(z)
        x, bias, blocks = u, None, None
        if self.legacy_mask:
            bias = torch.ones(count, count, device=u.device).triu(1)
            if valid is not None:
                bias = bias.expand(len(u), 1, -1, -1).masked_fill(~mask, float("-inf"))
        else:
            blocks = _blocks(count, u.device, None)
        for layer in self.decoder.layers:
            x = layer.norm1(x + layer.dropout1(attend(layer.self_attn, x, x, bias, blocks)))
            x = layer.norm2(x + layer.dropout2(attend(layer.multihead_attn, x, memory, mask)))
            x = layer.norm3(x + layer.dropout3(_feed_forward(layer, x)))
        return self.out(x), mu, logvar


class TemporalBody(nn.Module):
    """Both branches, concatenated; or, for ablations, one of them, an LSTM, or neither."""

    def __init__(
        self, body: str, length: int, period: int, legacy_pe: bool, legacy_mask: bool
    ) -> None:
        super().__init__()
        self.body = body
        self.width = WIDTH if body in ("short", "long") else 2 * WIDTH
        if body in ("dual", "short"):
            self.short_layer = TemporalAlignedBlock(length, period)
        if body in ("dual", "long"):
            self.long_layer = TemporalVAEBlock(length, legacy_pe, legacy_mask)
        if body == "lstm":
            self.lstm = nn.LSTM(2 * WIDTH, self.width, 2, batch_first=True)

    def forward(
        self, subject: Tensor, sound: Tensor, noise: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B,T,128) each -> (B,T,width), and mean and log variance of the latents, 0 without."""
        mu = logvar = torch.zeros_like(subject)
        if self.body == "none":
            return torch.cat([sound, subject], dim=-1), mu, logvar
        if self.body == "lstm":
            return self.lstm(torch.cat([subject, sound], dim=-1))[0], mu, logvar
        parts = []
        if self.body in ("dual", "short"):
            parts.append(self.short_layer(subject, sound))
        if self.body in ("dual", "long"):
            long, mu, logvar = self.long_layer(subject, sound, noise, valid)
            parts.append(long)
        return torch.cat(parts, dim=-1), mu, logvar


class MODANet(nn.Module):
    """Sound and the mean mesh of a subject to the offsets of lips, eyes, head and torso.

    Args:
        features: width of the sound features of a frame (wav2vec2: 768).
        head_layers: linear layers after the sound features: 2 for wav2vec2 and apc, 4 for mel.
        body: ``dual``, ``lstm``, ``short``, ``long`` or ``none``.
        subject_norm: ``batch`` (official) or ``layer``. Batch statistics of a corpus of one
            subject have no variance: the code is constant, and huge for any other subject.
        length: rows of the official positional tables; sequences may be longer.
        period: q of the periodic positional code and of the temporal bias.
        audio_encoder: wav2vec2, stored under the official name ``audio_encoder``.
    """

    def __init__(
        self,
        features: int = 768,
        head_layers: int = 2,
        *,
        body: str = "dual",
        subject_norm: str = "layer",
        length: int = 600,
        period: int = 30,
        legacy_pe: bool = False,
        legacy_mask: bool = False,
        audio_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if audio_encoder is not None:
            self.audio_encoder = audio_encoder
        self.audio_encoder_head = MLP(features, WIDTH, WIDTH, head_layers)
        self.subject_encoder_head = MLP(MESH, WIDTH, WIDTH, 3, subject_norm)
        self.temporal_body = TemporalBody(body, length, period, legacy_pe, legacy_mask)
        width = self.temporal_body.width
        self.lipmotion_tail = MLP(width, LIPS, 512, 2)
        self.eyemovement_tail = MLP(width, EYES, 256, 3)
        self.headmotion_tail = MLP(width, HEAD, 256, 3)
        self.torsomotion_tail = MLP(width, TORSO, 256, 3)

    def forward(
        self,
        sound: Tensor,
        subject: Tensor,
        *,
        noise: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Map a whole sequence at once.

        Args:
            sound: (B,T,features); or (B,N) normalised 16 kHz samples for ``audio_encoder``, with
                ``valid``, whose shape gives T.
            subject: (B,478,3) or (B,1434) mean mesh.
            noise: (B,T,128) standard normal times temperature; None: temperature 0.
            valid: (B,T) bool, frames that are no padding at the end; None: all.

        Returns:
            ``lips`` (B,T,120), ``eyes`` (B,T,180), ``head`` (B,T,7), ``torso`` (B,T,54): offsets
            from the subject's means; ``mu`` and ``logvar`` (B,T,128).
        """
        if sound.ndim == 2:
            sound = wav2vec2_at(self.audio_encoder, sound, valid.shape[1])
        code = self.subject_encoder_head(subject.flatten(1))
        encoded = self.audio_encoder_head(sound, valid)
        repeated = code[:, None].expand(-1, sound.shape[1], -1)
        context, mu, logvar = self.temporal_body(repeated, encoded, noise, valid)
        return {
            "lips": self.lipmotion_tail(context, valid),
            "eyes": self.eyemovement_tail(context, valid),
            "head": self.headmotion_tail(context, valid),
            "torso": self.torsomotion_tail(context, valid),
            "mu": mu,
            "logvar": logvar,
        }


def wav2vec2(weights: str | None, layers: int | None = None) -> nn.Module:
    """wav2vec2-base of ``transformers``, from a local folder or untrained.

    Args:
        weights: folder with ``config.json`` and the weights; None: untrained, always with seed 0.
        layers: keep only the first transformer layers.

    Raises:
        EnvironmentProblem: transformers is not installed.
        WeightsError: the folder contains no such model.
    """
    from talkingface.errors import WeightsError
    from talkingface.utils.env import require

    transformers: Any = require("transformers", why="The wav2vec2 sound encoder")
    if weights is None:
        shape = transformers.Wav2Vec2Config(feat_proj_dropout=0.1, num_hidden_layers=layers or 12)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = transformers.Wav2Vec2Model(shape)
    else:
        try:
            network = transformers.Wav2Vec2Model.from_pretrained(weights, local_files_only=True)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"audio_encoder.weights={weights} is not a folder with a wav2vec2 model "
                f"(config.json and model.safetensors or pytorch_model.bin): {error}"
            ) from error
        if layers:
            del network.encoder.layers[layers:]
    network.freeze_feature_encoder()
    # Distributed training waits for every gradient; dropped layers and an unused mask have none.
    network.config.layerdrop = 0.0
    network.masked_spec_embed.requires_grad_(False)
    return network


def wav2vec2_at(encoder: nn.Module, wave: Tensor, count: int) -> Tensor:
    """Normalised 16 kHz sound (B,N) to features of ``count`` video frames (B,count,768).

    Convolutions at 50 Hz, interpolation to ``count`` frames, then the transformer at the frame rate
    of the video (order of FaceFormer).
    """
    features = encoder.feature_extractor(wave.to(next(encoder.parameters()).device))
    features = F.interpolate(features, size=count, mode="linear", align_corners=True)
    hidden, _ = encoder.feature_projection(features.transpose(1, 2))
    if count > encoder.config.mask_time_length:
        hidden = encoder._mask_hidden_states(hidden)  # SpecAugment, in training mode only
    return encoder.encoder(hidden).last_hidden_state


class FaCoNet(nn.Module):
    """Facial composer: lips and eyes of a frame, and the subject, to the mesh of the face.

    All values are offsets from the mean of the subject; ``subject`` is the mean mesh.
    """

    def __init__(self) -> None:
        super().__init__()
        self.subject_encoder = MLP(MESH, 256, 128, 3, None)
        self.driven_m_encoder = MLP(LIPS, 128, 256, 3, None)
        self.driven_e_encoder = MLP(EYES, 128, 256, 3, None)
        self.decoder = MLP(256, MESH, 512, 4, None)

    def forward(self, lips: Tensor, eyes: Tensor, subject: Tensor) -> Tensor:
        """(B,T,120), (B,T,180), (B,1434) -> (B,T,1434)."""
        driven = torch.cat([self.driven_m_encoder(lips), self.driven_e_encoder(eyes)], dim=-1)
        return self.decoder(driven + self.subject_encoder(subject.flatten(1))[:, None])


class FaCoDiscriminator(nn.Module):
    """One score per frame: high for real meshes, given the subject, the lips and the eyes."""

    def __init__(self) -> None:
        super().__init__()
        self.subject_encoder = MLP(MESH, 256, 128, 3, None)
        self.mesh_encoder = MLP(LIPS + EYES + MESH, 256, 256, 2, None)
        self.classifier = MLP(256, 1, 128, 3, None)

    def forward(self, lips: Tensor, eyes: Tensor, mesh: Tensor, subject: Tensor) -> Tensor:
        """(B,T,120), (B,T,180), (B,T,1434), (B,1434) -> (B,T,1)."""
        encoded = self.mesh_encoder(torch.cat([lips, eyes, mesh], dim=-1))
        return self.classifier(encoded + self.subject_encoder(subject.flatten(1))[:, None])
