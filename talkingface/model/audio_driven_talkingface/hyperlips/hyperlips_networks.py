"""Networks of HyperLips stage 1 (arXiv 2310.05720): generator, discriminator, lip-sync expert.

Images are BGR in 0..1, never mean/std normalised (official code). With default arguments the
``state_dict`` keys and shapes equal those of the official files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

from talkingface.model.audio_driven_talkingface.hyperlips.warped_reference import (
    Painted,
    WarpedReference,
)
from talkingface.model.layers.conv_block import (
    LRASPP,
    ConvBlock,
    NonormConvBlock,
    StatelessConvGRU,
    scale_channels,
    set_batch_norm_momentum,
)
from talkingface.model.layers.hyper_conv import HyperConvPair, HyperNet
from talkingface.model.layers.mobilenet import MobileNetV3Encoder

_EXPERT_FACE_SIZE = (64, 128)  # height and width of the lower half of a 128 px crop (official code)


def fold_time(video: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) -> (T*B, C, H, W), time-major: row t*B + b (official code)."""
    return video.permute(2, 0, 1, 3, 4).flatten(0, 1)


def unfold_time(frames: torch.Tensor, batch: int) -> torch.Tensor:
    """Inverse of :func:`fold_time`: (T*B, C, H, W) -> (B, C, T, H, W)."""
    return frames.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4)


class HyperControlNet(nn.Module):
    """Audio branch: mel window -> four condition vectors -> modulation of the four face levels.

    Args:
        face_channels: channels of the four face levels, the last one after the LR-ASPP.
        width: channel factor of the audio encoder.
        hyper_dim: length of each condition vector.
        mel_shape: (mel bands, frames) of the window, which determine the size of the linear layers.
    """

    def __init__(
        self,
        face_channels: Sequence[int],
        *,
        width: float = 1.0,
        hyper_dim: int = 64,
        mel_shape: tuple[int, int] = (80, 16),
    ) -> None:
        super().__init__()
        self.mel_shape = tuple(mel_shape)
        self.audio_encoder = MobileNetV3Encoder(1, width=width)
        channels = self.audio_encoder.tap_channels
        self.aspp_a = LRASPP(channels[3], face_channels[3])
        channels = (*channels[:3], face_channels[3])
        for level, (audio_c, face_c) in enumerate(zip(channels, face_channels, strict=True)):
            size = [-(-n // 2 ** (level + 1)) for n in mel_shape]  # "same" padding: rounded up
            self.add_module(f"hnet{level}", HyperNet(audio_c * size[0] * size[1], hyper_dim))
            self.add_module(f"dconv_down{level}", HyperConvPair(face_c, hyper_dim))

    def encode(self, audio: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Mel windows (N, 1, 80, 16) -> four condition vectors (N, hyper_dim)."""
        if tuple(audio.shape[1:]) != (1, *self.mel_shape):
            raise ValueError(
                f"audio must be (N, 1, {self.mel_shape[0]}, {self.mel_shape[1]}), "
                f"got {tuple(audio.shape)}"
            )
        taps = self.audio_encoder(audio)
        taps[3] = self.aspp_a(taps[3])
        return tuple(getattr(self, f"hnet{k}")(tap.flatten(1)) for k, tap in enumerate(taps))

    def modulate(
        self, taps: Sequence[torch.Tensor], codes: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Apply the hyper convolutions to each face level (N, C, h, w); outputs are in 0..1."""
        return [
            getattr(self, f"dconv_down{level}")(tap, code)
            for level, (tap, code) in enumerate(zip(taps, codes, strict=True))
        ]


class _DecoderBlock(nn.Module):
    """Upsample, concatenate with skip and source, convolve; a GRU processes half the channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2dNormActivation(in_channels, out_channels, 3)
        self.gru = StatelessConvGRU(out_channels // 2)

    def forward(self, x: torch.Tensor, skip: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return _half_gru(self.conv(_upsample_and_join(x, skip, source)), self.gru)


class _Bottleneck(nn.Module):
    """Deepest decoder block: only the GRU on half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru = StatelessConvGRU(channels // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _half_gru(x, self.gru)


class _OutputBlock(nn.Module):
    """Full-resolution decoder block: no skip, no GRU, two convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *Conv2dNormActivation(in_channels, out_channels, 3),
            *Conv2dNormActivation(out_channels, out_channels, 3),
        )

    def forward(self, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return self.conv(_upsample_and_join(x, source))


def _half_gru(x: torch.Tensor, gru: StatelessConvGRU) -> torch.Tensor:
    kept, passed = x.chunk(2, dim=1)
    return torch.cat((kept, gru(passed)), dim=1)


def _upsample_and_join(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """Upsample ``x`` by 2, crop it to the size of ``others`` (if odd), concatenate the channels."""
    x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    height, width = others[-1].shape[-2:]
    return torch.cat((x[..., :height, :width], *others), dim=1)


class FaceDecoder(nn.Module):
    """Decoder over four modulated levels and the source image at four scales (official code).

    Args:
        tap_channels: channels of the four modulated levels, finest first.
        source_channels: channels of the source image, 6.
        channels: output channels of decode3, decode2, decode1, decode0; all even.

    Shapes:
        taps (N, C_k, H/2**(k+1), W/2**(k+1)), source (N, 6, H, W) in 0..1;
        output (N, channels[3], H, W).
    """

    def __init__(
        self, tap_channels: Sequence[int], source_channels: int, channels: Sequence[int]
    ) -> None:
        super().__init__()
        if any(c % 2 for c in (tap_channels[3], *channels)):
            raise ValueError("aspp_channels and decoder_channels must be even")
        self.decode4 = _Bottleneck(tap_channels[3])
        below = (tap_channels[3], *channels)
        self.decode3 = _DecoderBlock(below[0] + tap_channels[2] + source_channels, channels[0])
        self.decode2 = _DecoderBlock(below[1] + tap_channels[1] + source_channels, channels[1])
        self.decode1 = _DecoderBlock(below[2] + tap_channels[0] + source_channels, channels[2])
        self.decode0 = _OutputBlock(below[3] + source_channels, channels[3])

    def forward(self, taps: Sequence[torch.Tensor], source: torch.Tensor) -> torch.Tensor:
        sources = [source]
        for _ in range(3):
            sources.append(nn.functional.avg_pool2d(sources[-1], 2, 2, ceil_mode=True))
        x = self.decode4(taps[3])
        x = self.decode3(x, taps[2], sources[3])
        x = self.decode2(x, taps[1], sources[2])
        x = self.decode1(x, taps[0], sources[1])
        return self.decode0(x, sources[0])


class HyperLipsBaseNet(nn.Module):
    """Stage-1 generator: generates the masked lower half of a face from a mel window.

    Frames are processed independently. The default arguments build the official network:
    29,716,503 parameters, 787 state_dict entries.

    Args:
        width: channel factor of both MobileNetV3 encoders; 1 is official.
        aspp_channels: channels of the deepest level, even.
        hyper_dim: length of the condition vectors.
        decoder_channels: output channels of decode3, decode2, decode1 and of decode0 with the tail;
            even.
        image_size: size of the training images, stored for callers; the network is fully
            convolutional and accepts other sizes.
        mel_shape: (mel bands, frames) of one audio window.
        bn_momentum: None keeps the official values (0.01 in the encoders); a number overrides all.
        warp: largest displacement, as a fraction of the height, of pixels that are taken from the
            reference frame; the upper half is then that of the target frame. 0 is official: every
            pixel is generated.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        aspp_channels: int = 128,
        hyper_dim: int = 64,
        decoder_channels: tuple[int, int, int, int] = (80, 40, 32, 64),
        image_size: int = 128,
        mel_shape: tuple[int, int] = (80, 16),
        bn_momentum: float | None = None,
        warp: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.face_encoder = MobileNetV3Encoder(6, width=width)
        encoder_channels = self.face_encoder.tap_channels
        levels = (*encoder_channels[:3], aspp_channels)
        self.aspp = LRASPP(encoder_channels[3], aspp_channels)
        self.hyper_control_net = HyperControlNet(
            levels, width=width, hyper_dim=hyper_dim, mel_shape=mel_shape
        )
        self.decoder = FaceDecoder(levels, 6, decoder_channels)
        tail = decoder_channels[3]
        # "up_conv" is the official name; it does not upsample in stage 1.
        self.up_conv = nn.Sequential(
            ConvBlock(tail, tail, 3, 1, 1, residual=True),
            ConvBlock(tail, tail, 3, 1, 1, residual=True),
        )
        self.output_block = nn.Sequential(
            ConvBlock(tail, tail // 2, 3, 1, 1), nn.Conv2d(tail // 2, 3, 1), nn.Sigmoid()
        )
        self.warped_reference = WarpedReference(tail, warp) if warp else None
        if bn_momentum is not None:
            set_batch_norm_momentum(self, bn_momentum)

    def encode_audio(self, audio: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Audio branch only; call it once per clip with all windows in a batch.

        Args:
            audio: mel windows (N, 1, 80, 16).

        Returns:
            Four condition vectors (N, hyper_dim), finest face level first.
        """
        return self.hyper_control_net.encode(audio)

    def decode(
        self,
        codes: Sequence[torch.Tensor],
        face: torch.Tensor,
        *,
        render_batch: int | None = None,
        fine: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Image branch only.

        Args:
            codes: four condition vectors (N, hyper_dim) of :meth:`encode_audio`.
            face: (N, 6, H, W) in 0..1; channels 0..2 are the target frame with its lower half
                zero, channels 3..5 the whole reference frame.
            render_batch: batch size of the decoder, default N. Encoders and kernel generators are
                faster with large batches; the full-resolution feature maps of the decoder fit a
                CPU's cache only for few frames. N = 8..16 and 2 here are fastest on a CPU.
            fine: (N, 6, H', W'), the same frames in a higher resolution, from which a network with
                ``warp`` takes the pixels.

        Returns:
            (N, 3, H, W) in 0..1, or (N, 3, H', W') with ``fine``.

        Raises:
            ValueError: ``fine`` and a network without ``warp``.
        """
        return self.paint(codes, face, render_batch=render_batch, fine=fine).frames

    def paint(
        self,
        codes: Sequence[torch.Tensor],
        face: torch.Tensor,
        *,
        render_batch: int | None = None,
        fine: torch.Tensor | None = None,
    ) -> Painted:
        """The frames of :meth:`decode` with the flow from which they were made."""
        # The input gets the memory format of the weights.
        if (
            self.output_block[0]
            .conv_block[0]
            .weight.is_contiguous(memory_format=torch.channels_last)
        ):
            face = face.contiguous(memory_format=torch.channels_last)
        taps = self.face_encoder(face)
        taps[3] = self.aspp(taps[3])
        taps = self.hyper_control_net.modulate(taps, codes)
        if fine is not None and self.warped_reference is None:
            raise ValueError("fine needs a network with warp")
        images = (*taps, face, face if fine is None else fine)
        parts = zip(*(x.split(render_batch or len(face)) for x in images), strict=True)
        painted = [self._render(levels, source, fine) for *levels, source, fine in parts]
        if len(painted) == 1:
            return painted[0]
        return Painted(
            *(None if part[0] is None else torch.cat(part) for part in zip(*painted, strict=True))
        )

    def _render(
        self, levels: Sequence[torch.Tensor], source: torch.Tensor, fine: torch.Tensor
    ) -> Painted:
        features = self.up_conv(self.decoder(levels, source))
        frames = self.output_block(features)
        if self.warped_reference is None:
            return Painted(frames)
        painted = self.warped_reference(features, frames, fine[:, 3:])
        half = fine.shape[2] // 2
        upper = fine[:, :3, :half].to(painted.frames.dtype)
        return painted._replace(frames=torch.cat([upper, painted.frames[:, :, half:]], dim=2))

    def forward(
        self, audio: torch.Tensor, face: torch.Tensor, fine: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Generate frames.

        Args:
            audio: (N, 1, 80, 16), or (B, T, 1, 80, 16).
            face: (N, 6, H, W), or (B, 6, T, H, W); see :meth:`decode`.
            fine: the same frames in a higher resolution, see :meth:`decode`.

        Returns:
            (N, 3, H, W), or (B, 3, T, H, W), in 0..1, in the resolution of ``fine`` if it is given.
        """
        if face.dim() == 4:
            return self.decode(self.encode_audio(audio), face, fine=fine)
        audio = audio.transpose(0, 1).flatten(0, 1)
        fine = None if fine is None else fold_time(fine)
        frames = self.decode(self.encode_audio(audio), fold_time(face), fine=fine)
        return unfold_time(frames, face.shape[0])


class HyperCtrolDiscriminator(nn.Module):
    """Discriminator of the lower half of each frame (official code and spelling).

    Args:
        base_channels: channels of the first block, official 32; those of the others are multiples.

    Shapes:
        input (B, 3, T, H, W) or (N, 3, H, W), whole crops in 0..1; output (T*B, 1) or (N, 1),
        time-major: probability that the frame is real, or its logit.
    """

    def __init__(self, *, base_channels: int = 32) -> None:
        super().__init__()
        c = [base_channels * factor for factor in (1, 2, 4, 8, 16)]
        conv = NonormConvBlock
        self.face_encoder_blocks = nn.ModuleList(
            nn.Sequential(*block)
            for block in (
                (conv(3, c[0], 7, 1, 3),),
                (conv(c[0], c[1], 5, (1, 2), 2), conv(c[1], c[1], 5, 1, 2)),
                (conv(c[1], c[2], 5, 2, 2), conv(c[2], c[2], 5, 1, 2)),
                (conv(c[2], c[3], 5, 2, 2), conv(c[3], c[3], 5, 1, 2)),
                (conv(c[3], c[4], 3, 2, 1), conv(c[4], c[4], 3, 1, 1)),
                (conv(c[4], c[4], 3, 2, 1), conv(c[4], c[4], 3, 1, 1)),
                (conv(c[4], c[4], 3), conv(c[4], c[4], 1)),
            )
        )
        self.binary_pred = nn.Sequential(nn.Conv2d(c[4], 1, 1), nn.Sigmoid())

    def forward(self, faces: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        x = lower_half(fold_time(faces) if faces.dim() == 5 else faces)
        for block in self.face_encoder_blocks:
            x = block(x)
        x = self.binary_pred[0](x.mean((2, 3), keepdim=True)).flatten(1)
        return x if logits else self.binary_pred[1](x)


def lower_half(frames: torch.Tensor) -> torch.Tensor:
    """Lower half of crops (N, C, H, W) at the input size of the discriminator, (N, C, 64, 128).

    Crops of other sizes than 128 px are resized (bilinear). The official code does this for the
    expert only.
    """
    half = frames[..., frames.shape[-2] // 2 :, :]
    if tuple(half.shape[-2:]) == _EXPERT_FACE_SIZE:
        return half
    return nn.functional.interpolate(
        half, size=_EXPERT_FACE_SIZE, mode="bilinear", align_corners=False
    )


class SyncNetColor(nn.Module):
    """Lip-sync expert: embeds a mel window and 5 lower half faces in one space (official code).

    It cannot load weights of Wav2Lip's expert, whose faces are 48x96 px.

    Args:
        width: channel factor; 1.0 is the official network (22,991,744 parameters).

    Shapes:
        mel (B, 1, 80, 16); faces (B, 15, 64, 128), 5 consecutive BGR frames in 0..1, concatenated
        frame-major; outputs (audio_emb, face_emb), each (B, 512 * width), >= 0 and of unit length,
        so that their scalar product is the probability that audio and faces are in sync.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        c = {n: scale_channels(n, width) for n in (32, 64, 128, 256, 512)}

        def stage(entry: nn.Module, channels: int, repeats: int) -> list[nn.Module]:
            rest = [ConvBlock(channels, channels, 3, 1, 1, residual=True) for _ in range(repeats)]
            return [entry, *rest]

        self.face_encoder = nn.Sequential(
            ConvBlock(15, c[32], 7, 1, 3),
            # Padding 1 with a 5x5 kernel is official: 64x128 -> 62x63.
            *stage(ConvBlock(c[32], c[64], 5, (1, 2), 1), c[64], 2),
            *stage(ConvBlock(c[64], c[128], 3, 2, 1), c[128], 3),
            *stage(ConvBlock(c[128], c[256], 3, 2, 1), c[256], 2),
            *stage(ConvBlock(c[256], c[512], 3, 2, 1), c[512], 2),
            *stage(ConvBlock(c[512], c[512], 3, 2, 1), c[512], 2),
            ConvBlock(c[512], c[512], 4),
            ConvBlock(c[512], c[512], 1),
        )
        self.audio_encoder = nn.Sequential(
            *stage(ConvBlock(1, c[32], 3, 1, 1), c[32], 2),
            *stage(ConvBlock(c[32], c[64], 3, (3, 1), 1), c[64], 2),
            *stage(ConvBlock(c[64], c[128], 3, 3, 1), c[128], 2),
            *stage(ConvBlock(c[128], c[256], 3, (3, 2), 1), c[256], 2),
            ConvBlock(c[256], c[512], 3),
            ConvBlock(c[512], c[512], 1),
        )

    def forward(self, mel: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if tuple(faces.shape[1:]) != (15, *_EXPERT_FACE_SIZE):
            raise ValueError(f"faces must be (B, 15, 64, 128), got {tuple(faces.shape)}")
        audio_emb = self.audio_encoder(mel).flatten(1)
        face_emb = self.face_encoder(faces).flatten(1)
        return nn.functional.normalize(audio_emb), nn.functional.normalize(face_emb)
