"""Networks of Audio2Feature and Audio2Headpose with official ``state_dict`` names."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkingface.model.layers.initialise import SLOPE, initialise

POSE = 6  # values of a pose; its change per frame has as many


def look_ahead(speech: Tensor, frames: int) -> Tensor:
    """Append ``frames`` frames to speech features (N,2*hidden): the last row of two, repeated."""
    last = speech[-1, speech.shape[1] // 2 :].repeat(2)
    return torch.cat([speech, last.expand(frames, -1)])


class Audio2FeatureNet(nn.Module):
    """Speech features to the displacement of 25 points.

    Args:
        apc_hidden: width of the speech features; a frame has two rows.
        hidden: width of the LSTM (official: 256); the linear layers are twice as wide.
    """

    def __init__(
        self, apc_hidden: int = 512, hidden: int = 256, layers: int = 3, outputs: int = 75
    ) -> None:
        super().__init__()
        wide = 2 * hidden
        self.downsample = nn.Sequential(
            nn.Linear(2 * apc_hidden, wide),
            nn.BatchNorm1d(wide),
            nn.LeakyReLU(SLOPE),
            nn.Linear(wide, wide),
        )
        self.LSTM = nn.LSTM(wide, hidden, layers, batch_first=True)
        self.fc = nn.Sequential(
            nn.Linear(hidden, wide),
            nn.BatchNorm1d(wide),
            nn.LeakyReLU(SLOPE),
            nn.Linear(wide, wide),
            nn.BatchNorm1d(wide),
            nn.LeakyReLU(SLOPE),
            nn.Linear(wide, outputs),
        )
        initialise(self)

    def forward(self, audio: Tensor) -> Tensor:
        """(B,2T,apc_hidden) or (B,T,2*apc_hidden) -> (B,T,75), one output per input frame."""
        return self.stream(audio)[0]

    def stream(
        self, audio: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Outputs of the next frames of a sequence, and the LSTM state after them."""
        batch = len(audio)
        pairs = audio.reshape(batch, -1, self.downsample[0].in_features)
        hidden = self.downsample(pairs.flatten(0, 1)).unflatten(0, (batch, -1))
        hidden, state = self.LSTM(hidden, state)
        return self.fc(hidden.flatten(0, 1)).unflatten(0, (batch, -1)), state


class _ResidualBlock(nn.Module):
    """Conditioned gated dilated convolution (WaveNet), causal by zero padding."""

    def __init__(
        self, channels: int, skip: int, condition: int, kernel: int, dilation: int
    ) -> None:
        super().__init__()
        self.dilation, self.kernel = dilation, kernel
        for name in ("filter", "gate"):
            self.add_module(
                f"{name}_conv", nn.Conv1d(channels, channels, kernel, dilation=dilation)
            )
            self.add_module(f"cond_{name}_conv", nn.Conv1d(condition, channels, 1))
        self.residual_conv = nn.Conv1d(channels, channels, 1)
        self.skip_conv = nn.Conv1d(channels, skip, 1)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        padded = F.pad(x, ((self.kernel - 1) * self.dilation, 0))
        filtered = torch.tanh(self.filter_conv(padded) + self.cond_filter_conv(condition))
        gate = torch.sigmoid(self.gate_conv(padded) + self.cond_gate_conv(condition))
        z = filtered * gate
        return self.residual_conv(z) + x, self.skip_conv(z)


class WaveNet(nn.Module):
    """Conditional causal WaveNet that outputs the parameters of Gaussians."""

    def __init__(
        self,
        inputs: int = 12,
        outputs: int = 25,
        layers: int = 7,
        blocks: int = 2,
        channels: int = 128,
        skip: int = 256,
        condition: int = 512,
        kernel: int = 2,
    ) -> None:
        super().__init__()
        self.channels, self.inputs = channels, inputs
        self.drop = nn.Dropout1d(0.5)  # drops channels of the history (official: Dropout2d)
        self.start_conv1 = nn.Conv1d(inputs, channels, 1)
        self.start_conv2 = nn.Conv1d(channels, channels, 1)
        self.residual_blocks = nn.ModuleList(
            _ResidualBlock(channels, skip, condition, kernel, 2**layer)
            for _ in range(blocks)
            for layer in range(layers)
        )
        self.end_conv_1 = nn.Conv1d(skip, outputs, 1)
        self.end_conv_2 = nn.Conv1d(outputs, outputs, 1)

    @property
    def receptive_field(self) -> int:
        """Steps of history that an output depends on."""
        return 1 + sum((b.kernel - 1) * b.dilation for b in self.residual_blocks)

    def start(self, history: Tensor) -> Tensor:
        """(B,12,T) -> (B,channels,T)."""
        x = F.leaky_relu(self.start_conv1(history), SLOPE)
        return F.leaky_relu(self.start_conv2(x), SLOPE)

    def end(self, skips: Tensor) -> Tensor:
        """(B,skip,T) -> (B,25,T)."""
        x = F.leaky_relu(skips, SLOPE)
        return self.end_conv_2(F.leaky_relu(self.end_conv_1(x), SLOPE))

    def forward(self, history: Tensor, condition: Tensor, output_length: int) -> Tensor:
        """(B,12,T) and (B,512,T) -> the last steps (B,output_length,25)."""
        x = self.start(self.drop(history))
        total: Tensor | None = None
        for block in self.residual_blocks:
            x, skip = block(x, condition)
            skip = skip[..., -output_length:]
            total = skip if total is None else total + skip
        return self.end(total).transpose(1, 2)


class Audio2HeadposeNet(nn.Module):
    """Speech features and past poses to a distribution of the next pose.

    Output per step: ``ncenter`` logits, ``ncenter * ndim`` means, as many negative log sigmas.

    Args:
        residual: means are relative to the previous pose, so an untrained network predicts a still
            head. The official network predicts the pose.
        return_frames: time constant in frames with which generation with ``residual`` returns the
            head to its mean pose, since the sum of sampled changes drifts; 0: no return.
    """

    def __init__(
        self,
        apc_hidden: int = 512,
        condition: int = 512,
        layers: int = 7,
        blocks: int = 2,
        channels: int = 128,
        skip: int = 256,
        ncenter: int = 1,
        ndim: int = 12,
        residual: bool = False,
        return_frames: float = 0.0,
    ) -> None:
        super().__init__()
        self.ncenter, self.ndim, self.residual = ncenter, ndim, residual
        self.stay = 1 - 1 / return_frames if residual and return_frames > 0 else 1.0
        self.audio_downsample = nn.Sequential(
            nn.Linear(2 * apc_hidden, condition),
            nn.BatchNorm1d(condition),
            nn.LeakyReLU(SLOPE),
            nn.Linear(condition, condition),
        )
        outputs = ncenter * (1 + 2 * ndim)
        self.WaveNet = WaveNet(ndim, outputs, layers, blocks, channels, skip, condition)
        initialise(self)

    @property
    def receptive_field(self) -> int:
        return self.WaveNet.receptive_field

    def condition(self, audio: Tensor) -> Tensor:
        """(B,T,2*apc_hidden) -> (B,512,T)."""
        flat = self.audio_downsample(audio.flatten(0, 1))
        return flat.unflatten(0, audio.shape[:2]).transpose(1, 2)

    def forward(self, history: Tensor, audio: Tensor, output_length: int = 1) -> Tensor:
        """(B,T,12) and (B,T,2*apc_hidden) -> (B,output_length,25)."""
        condition = self.condition(audio)
        params = self.WaveNet(history.transpose(1, 2), condition, output_length)
        return self.after(params, history[:, -output_length:])

    def after(self, params: Tensor, last: Tensor) -> Tensor:
        """Parameters (...,25) of the poses that follow ``last`` (...,12)."""
        if not self.residual:
            return params
        centre, size = self.ncenter, self.ncenter * self.ndim
        means = params[..., centre : centre + size] + last.tile(centre)
        return torch.cat([params[..., :centre], means, params[..., centre + size :]], dim=-1)

    def sample(self, params: Tensor, sigma: float, generator: torch.Generator | None) -> Tensor:
        """Sample poses (B,12) from parameters (B,25).

        Args:
            sigma: factor on the standard deviations (official: 0.3); 0 gives the mean.
        """
        centre, size = self.ncenter, self.ncenter * self.ndim
        means = params[:, centre : centre + size].unflatten(1, (centre, -1))
        spread = torch.exp(-params[:, centre + size :]).unflatten(1, (centre, -1))
        if centre > 1:
            shares = params[:, :centre].softmax(1).cpu()
            chosen = torch.multinomial(shares, 1, generator=generator).to(params.device)
            chosen = chosen[..., None].expand(-1, -1, self.ndim)
            means, spread = means.gather(1, chosen), spread.gather(1, chosen)
        means, spread = means[:, 0], spread[:, 0]
        if sigma == 0:
            return means
        # Sampled on the CPU, so that a seed gives the same motion on every device.
        noise = torch.randn(means.shape, generator=generator).to(means.device)
        return means + noise * spread * sigma


class PoseGenerator:
    """Samples one pose after the other; each block keeps only the inputs that it still needs.

    Equals the official generation, which runs the whole network over 255 steps for every frame:
    that history is exactly as long as the receptive field.

    Args:
        network: in eval mode.
        sigma: see :meth:`Audio2HeadposeNet.sample`.
        ahead: look-ahead, frames of sound after a pose.
        seed: of the random numbers.
    """

    def __init__(
        self, network: Audio2HeadposeNet, *, sigma: float = 0.3, ahead: int = 15, seed: int = 0
    ) -> None:
        self.network, self.sigma, self.ahead = network, sigma, ahead
        self.generator = torch.Generator().manual_seed(seed)
        device = next(network.parameters()).device
        self._last = torch.zeros(1, network.ndim, device=device)
        self._early: Tensor | None = None  # sound before the first pose
        self._queues: list[Tensor] | None = None
        self._weights: list[tuple[Tensor, ...]] = []

    @torch.no_grad()
    def generate(self, audio: Tensor) -> Iterator[Tensor]:
        """Poses (12,) from the next speech features (T,2*apc_hidden).

        Row t gives the pose of frame ``t - ahead``; the first ``ahead`` rows give none.
        """
        if not len(audio):
            return
        rows = self.network.audio_downsample(audio)
        if self._queues is None:
            if self._early is not None:
                rows = torch.cat([self._early, rows])
            if len(rows) <= self.ahead:
                self._early = rows
                return
            self._warm_up(rows[: self.ahead + 1])
            rows, self._early = rows[self.ahead :], None
        # Conditions of all frames at once: one matrix product per block, not one per frame.
        conditions = [
            F.linear(
                rows,
                torch.cat([b.cond_filter_conv.weight, b.cond_gate_conv.weight])[..., 0],
                torch.cat([b.cond_filter_conv.bias, b.cond_gate_conv.bias]),
            )
            for b in self.network.WaveNet.residual_blocks
        ]
        for t in range(len(rows)):
            params = self._step([condition[t] for condition in conditions])
            params = self.network.after(params, self._last)
            self._last = self.network.sample(params, self.sigma, self.generator)
            self._last[:, :POSE] *= self.network.stay
            yield self._last[0]

    def _warm_up(self, rows: Tensor) -> None:
        """Fill the queues with one pass instead of 254 steps.

        The history is zero (the mean pose). Its sound is the first row, repeated, and then the
        ``ahead`` rows before the first pose.
        """
        wavenet = self.network.WaveNet
        steps = wavenet.receptive_field - 1
        x = wavenet.start(self._last[..., None].expand(-1, -1, steps))
        early = torch.cat([rows[:1].expand(steps, -1), rows[: self.ahead]])[-steps:]
        sound = early.T[None]
        self._queues, self._weights = [], []
        for block in wavenet.residual_blocks:
            # Ring buffer (dilation, channels); each step reads and replaces the oldest input.
            queue = F.pad(x, (max(0, block.dilation - steps), 0))[0, :, -block.dilation :]
            self._queues.append(queue.T.contiguous())
            x, _ = block(x, sound)
            # Filter and gate as one product: (2 channels, 2 channels) with old and new input.
            both = torch.cat([block.filter_conv.weight, block.gate_conv.weight])
            out = torch.cat([block.residual_conv.weight, block.skip_conv.weight])[..., 0]
            self._weights.append(
                (
                    torch.cat([both[..., 0], both[..., 1]], dim=1).contiguous(),
                    torch.cat([block.filter_conv.bias, block.gate_conv.bias]),
                    out.contiguous(),
                    torch.cat([block.residual_conv.bias, block.skip_conv.bias]),
                )
            )
        self._time = 0

    def _step(self, conditions: list[Tensor]) -> Tensor:
        wavenet = self.network.WaveNet
        channels = wavenet.channels
        x = wavenet.start(self._last[..., None])[0, :, 0]
        total: Tensor | None = None
        for block, queue, weights, condition in zip(
            wavenet.residual_blocks, self._queues, self._weights, conditions, strict=True
        ):
            both, bias, out, out_bias = weights
            slot = self._time % block.dilation
            z = torch.mv(both, torch.cat([queue[slot], x])) + (bias + condition)
            queue[slot] = x
            z = torch.tanh(z[:channels]) * torch.sigmoid(z[channels:])
            output = torch.addmv(out_bias, out, z)
            x = output[:channels] + x
            skip = output[channels:]
            total = skip if total is None else total + skip
        self._time += 1
        return wavenet.end(total[None, :, None])[..., 0]


def gaussian_nll(
    params: Tensor, target: Tensor, ncenter: int = 1, sigma_min: float = 0.03
) -> Tensor:
    """Negative log-likelihood of poses in nats per value (official code); may be negative.

    Several centres form a mixture; the official code ignores its weights.

    Args:
        params: (B,T,ncenter*(1+2*ndim)); target: (B,T,ndim).
        sigma_min: smallest standard deviation.

    Returns:
        Mean over batch, time and values, 0-dim.
    """
    ndim = target.shape[-1]
    size = ncenter * ndim
    means = params[..., ncenter : ncenter + size].unflatten(-1, (ncenter, ndim))
    inverse = params[..., ncenter + size :].unflatten(-1, (ncenter, ndim))
    inverse = inverse.clamp(max=-math.log(sigma_min))
    z = (target[..., None, :] - means) * inverse.exp()
    each = 0.5 * math.log(2 * math.pi) - inverse + 0.5 * z.square()
    if ncenter == 1:
        return each.mean()
    shares = params[..., :ncenter].log_softmax(-1)
    return -torch.logsumexp(shares - each.sum(-1), dim=-1).mean() / ndim
