"""Behaviour of the HyperLips stage-1 networks at small sizes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import (
    HyperCtrolDiscriminator,
    HyperLipsBaseNet,
    SyncNetColor,
    fold_time,
    lower_half,
    unfold_time,
)
from talkingface.model.audio_driven_talkingface.hyperlips.warped_reference import (
    WarpedReference,
)
from talkingface.model.fuse import optimize_for_inference
from talkingface.model.layers.conv_block import StatelessConvGRU
from talkingface.model.layers.hyper_conv import HyperConv

_SMALL = dict(width=0.35, aspp_channels=32, hyper_dim=16, decoder_channels=(24, 16, 16, 16))


def _inputs(n: int, size: int = 64, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(n, 1, 80, 16, generator=generator)
    return audio, torch.rand(n, 6, size, size, generator=generator)


@torch.no_grad()
def _settled(net: HyperLipsBaseNet) -> HyperLipsBaseNet:
    """Evaluation mode with BatchNorm statistics that fit: with fresh ones audio has no effect."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.normal_(norm.bias, 0, 0.1)
        norm.momentum = 1.0
    net.train()(*_inputs(8, seed=7))
    for (
        norm
    ) in norms:  # an untrained net has channels of nearly no variance, which blow up rounding
        norm.running_var.clamp_(min=0.05)
    return net.eval()


@pytest.fixture(scope="module")
def net() -> HyperLipsBaseNet:
    torch.manual_seed(0)
    return _settled(HyperLipsBaseNet(**_SMALL))


@torch.no_grad()
def test_hyper_conv_equals_a_loop_over_the_samples():
    torch.manual_seed(0)
    layer, x, code = HyperConv(5, 8), torch.randn(3, 5, 9, 7), torch.randn(3, 8)
    kernels, biases = layer.hyperkernel(code).view(3, 5, 5, 3, 3), layer.hyperbias(code)
    loop = [
        nn.functional.conv2d(x[i : i + 1], kernels[i], biases[i], padding=1) for i in range(len(x))
    ]
    for layout in (torch.contiguous_format, torch.channels_last):
        out = layer(x.contiguous(memory_format=layout), code)
        torch.testing.assert_close(out, torch.cat(loop), atol=1e-5, rtol=1e-5)


def test_hyper_conv_refuses_another_batch_size():
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        HyperConv(4, 8)(torch.randn(3, 4, 8, 8), torch.randn(2, 8))


def test_hyper_conv_leaves_no_tensor_on_the_module():
    layer = HyperConv(4, 8)
    before = set(vars(layer))
    layer(torch.randn(2, 4, 6, 6), torch.randn(2, 8))
    assert set(vars(layer)) == before


def test_stateless_gru_equals_the_full_cell_with_a_zero_state():
    torch.manual_seed(0)
    gru, x = StatelessConvGRU(6), torch.randn(2, 6, 8, 8)
    h = torch.zeros_like(x)
    r, z = gru.ih(torch.cat((x, h), dim=1)).chunk(2, dim=1)
    full = (1 - z) * h + z * gru.hh(torch.cat((x, r * h), dim=1))
    torch.testing.assert_close(gru(x), full, atol=1e-6, rtol=0)


@torch.no_grad()
def test_output_does_not_depend_on_batch_order_or_size(net):
    audio, face = _inputs(4)
    together = net(audio, face)
    assert together.std() > 0.02  # otherwise the comparison means nothing
    assert (net(audio.flip(0), face.flip(0)).flip(0) - together).abs().max() < 1e-5
    alone = torch.cat([net(audio[i : i + 1], face[i : i + 1]) for i in range(4)])
    assert (alone - together).abs().max() < 1e-5


@torch.no_grad()
def test_output_depends_on_audio_and_face(net):
    audio, face = _inputs(2)
    out = net(audio, face)
    assert (net(audio.flip(0), face) - out).abs().max() > 1e-3
    assert (net(audio, face.flip(0)) - out).abs().max() > 1e-3


@torch.no_grad()
def test_windows_equal_single_frames(net):
    audio, face = _inputs(6)
    windows = net(audio.view(2, 3, 1, 80, 16), face.view(2, 3, 6, 64, 64).transpose(1, 2))
    assert windows.shape == (2, 3, 3, 64, 64)
    frames = windows.transpose(1, 2).flatten(0, 1)
    assert (frames - net(audio, face)).abs().max() < 1e-5


def test_time_folding_is_time_major_and_can_be_undone():
    video = torch.arange(2 * 3 * 4).view(2, 1, 3, 4, 1).float()
    folded = fold_time(video)
    assert torch.equal(folded[1 * 2 + 0], video[0, :, 1])  # row t * B + b
    assert torch.equal(unfold_time(folded, 2), video)


@torch.no_grad()
def test_encoding_the_clip_first_changes_nothing(net):
    audio, face = _inputs(5)
    codes = net.encode_audio(audio)
    assert [tuple(code.shape) for code in codes] == [(5, 16)] * 4
    for render_batch in (None, 1, 2):
        out = net.decode(codes, face, render_batch=render_batch)
        assert (out - net(audio, face)).abs().max() < 1e-5


@torch.no_grad()
def test_inference_copy_equals_the_plain_network(net):
    fast = optimize_for_inference(net)
    audio, face = _inputs(3)
    assert (fast(audio, face) - net(audio, face)).abs().max() < 1e-4
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert not any(p.requires_grad for p in fast.parameters())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) > 90  # original untouched
    assert all(p.requires_grad for p in net.parameters())


@torch.no_grad()
def test_folding_handles_transposed_convolutions_and_leaves_others_alone():
    torch.manual_seed(0)
    block = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, 2, 1, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 5, 3)),
        nn.BatchNorm2d(5),
    ).train()
    block(torch.randn(8, 4, 9, 9))  # moves the running statistics
    fast, x = optimize_for_inference(block), torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(fast(x), block.eval()(x), atol=1e-5, rtol=1e-4)
    assert [isinstance(m, nn.BatchNorm2d) for m in fast] == [False] * 4 + [True]


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (128, 96), (100, 100)])
@torch.no_grad()
def test_generator_takes_other_sizes(net, size):
    face = torch.rand(1, 6, *size)
    out = net(torch.randn(1, 1, 80, 16), face)
    assert out.shape == (1, 3, *size)
    assert 0 <= out.min() and out.max() <= 1


@torch.no_grad()
def test_generator_takes_another_mel_window():
    small = HyperLipsBaseNet(**_SMALL, mel_shape=(80, 12)).eval()
    assert small(torch.randn(1, 1, 80, 12), torch.rand(1, 6, 64, 64)).shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"audio must be \(N, 1, 80, 12\)"):
        small.encode_audio(torch.randn(1, 1, 80, 16))


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (70, 66), (65, 63)])
def test_with_warp_an_untrained_network_nearly_shows_the_reference(size):
    small = HyperLipsBaseNet(**_SMALL, warp=0.2).eval()
    face, half = torch.rand(2, 6, *size), size[0] // 2
    out = small(torch.randn(2, 1, 80, 16), face)
    assert torch.equal(out[:, :, :half], face[:, :3, :half])
    assert (out[:, :, half:] - face[:, 3:, half:]).abs().max() < 0.06
    for conv in (small.warped_reference.flow, small.warped_reference.share):
        torch.nn.init.normal_(conv.weight, std=2.0)
    fast = optimize_for_inference(small)
    torch.testing.assert_close(fast(torch.zeros(2, 1, 80, 16), face)[:, :, half:],
                               small(torch.zeros(2, 1, 80, 16), face)[:, :, half:],
                               atol=1e-4, rtol=0)  # fmt: skip


@torch.no_grad()
def test_with_warp_the_pixels_may_come_from_a_higher_resolution(net):
    torch.manual_seed(0)
    small = HyperLipsBaseNet(**_SMALL, warp=0.2).eval()
    for conv in (small.warped_reference.flow, small.warped_reference.share):
        torch.nn.init.normal_(conv.weight, std=2.0)
    smooth = torch.nn.functional.interpolate(torch.rand(3, 6, 8, 8), 192, mode="bicubic")
    face = torch.nn.functional.interpolate(smooth, 64, mode="area")
    codes = small.encode_audio(torch.randn(3, 1, 80, 16))
    coarse = small.decode(codes, face)
    out = small.decode(codes, face, render_batch=2, fine=smooth)
    assert out.shape == (3, 3, 192, 192) and torch.equal(out[:, :, :96], smooth[:, :3, :96])
    again = torch.nn.functional.interpolate(out, 64, mode="area")
    inner = (..., slice(34, 60), slice(4, 60))
    assert (again - coarse)[inner].abs().mean() < 0.02
    assert (face[:, 3:] - coarse)[inner].abs().mean() > 0.05  # not just the reference
    with pytest.raises(ValueError, match="warp"):
        net.decode(net.encode_audio(_inputs(2)[0]), _inputs(2)[1], fine=smooth[:2])


def test_the_reference_is_moved_to_where_the_target_is():
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), 64, mode="bicubic")
    target = torch.roll(image, (2, -3), (2, 3))
    module, features = WarpedReference(4, 0.2), torch.ones(1, 4, 64, 64)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.005)
    losses, inner = [], (..., slice(8, -8), slice(8, -8))
    for _ in range(80):
        out = module(features, torch.full_like(image, 0.5), image).frames
        loss = (out[inner] - target[inner]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_odd_decoder_channels_are_refused():
    with pytest.raises(ValueError, match="even"):
        HyperLipsBaseNet(**{**_SMALL, "decoder_channels": (24, 16, 15, 16)})


def test_batch_norm_settings_are_official_unless_overridden():
    norms = {
        k: m for k, m in HyperLipsBaseNet(**_SMALL).named_modules() if isinstance(m, nn.BatchNorm2d)
    }
    assert (norms["face_encoder.features.0.1"].eps, norms["aspp.aspp1.1"].eps) == (1e-5, 1e-5)
    inner = norms["hyper_control_net.audio_encoder.features.1.block.0.1"]
    assert (inner.eps, inner.momentum) == (1e-3, 0.01)
    short = HyperLipsBaseNet(**_SMALL, bn_momentum=0.1)
    assert {m.momentum for m in short.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_gradient_reaches_every_parameter_that_matters(net):
    net = copy.deepcopy(net)  # evaluation mode: in training BatchNorm cancels the biases before it
    net(*_inputs(2)).square().sum().backward()
    for level in (4, 3, 2, 1):
        gru = getattr(net.decoder, f"decode{level}").gru
        c = gru.channels
        # Dead by construction: the reset gate, and all that multiplies the zero state.
        for dead in (
            gru.ih[0].weight.grad[:c],
            gru.ih[0].bias.grad[:c],
            gru.ih[0].weight.grad[:, c:],
            gru.hh[0].weight.grad[:, c:],
        ):
            assert not dead.any()
        for alive in (
            gru.ih[0].weight.grad[c:, :c],
            gru.ih[0].bias.grad[c:],
            gru.hh[0].weight.grad[:, :c],
            gru.hh[0].bias.grad,
        ):
            assert alive.any()
    silent = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_training_step_lowers_the_loss(layout):
    torch.manual_seed(0)
    small = HyperLipsBaseNet(**_SMALL, bn_momentum=0.1).to(memory_format=layout).train()
    audio, face = _inputs(4)
    windows = audio.view(2, 2, 1, 80, 16), face.view(2, 2, 6, 64, 64).transpose(1, 2)
    optimizer = torch.optim.Adam(small.parameters(), lr=2e-3)
    losses = []
    for _ in range(4):
        loss = (small(*windows) - windows[1][:, 3:]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@torch.no_grad()
def test_bfloat16_autocast_runs(net):
    audio, face = _inputs(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(audio, face)
    assert out.isfinite().all()
    assert (out.float() - net(audio, face)).abs().mean() < 0.05


def test_networks_can_be_copied_after_a_forward_pass():
    small = HyperLipsBaseNet(**_SMALL)
    small(*_inputs(2))
    again = copy.deepcopy(small)
    assert all(
        torch.equal(a, b) for a, b in zip(small.parameters(), again.parameters(), strict=True)
    )


@pytest.mark.parametrize("size", [64, 96, 128, 256])
@torch.no_grad()
def test_discriminator_judges_the_lower_half_only(size):
    torch.manual_seed(0)
    judge = HyperCtrolDiscriminator(base_channels=4).eval()
    video = torch.rand(2, 3, 2, size, size)
    probability = judge(video)
    assert probability.shape == (4, 1)
    torch.testing.assert_close(judge(video, logits=True).sigmoid(), probability)
    upper, lower = video.clone(), video.clone()
    upper[..., : size // 2, :] = 0
    lower[..., size // 2 :, :] = 0
    assert torch.equal(judge(upper), probability)
    assert not torch.equal(judge(lower, logits=True), judge(video, logits=True))
    torch.testing.assert_close(judge(fold_time(video)), probability)


def test_lower_half_is_not_resampled_at_128():
    frames = torch.rand(2, 3, 128, 128)
    assert torch.equal(lower_half(frames), frames[:, :, 64:])
    assert lower_half(frames[..., :96, :96]).shape == (2, 3, 64, 128)


@torch.no_grad()
def test_expert_gives_unit_vectors():
    torch.manual_seed(0)
    expert = SyncNetColor(width=0.25).eval()
    audio_emb, face_emb = expert(torch.randn(2, 1, 80, 16), torch.rand(2, 15, 64, 128))
    assert audio_emb.shape == face_emb.shape == (2, 128)
    for embedding in (audio_emb, face_emb):
        assert embedding.min() >= 0
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    with pytest.raises(ValueError, match="64, 128"):
        expert(torch.randn(2, 1, 80, 16), torch.rand(2, 15, 48, 96))
