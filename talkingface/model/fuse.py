"""Make a trained network faster at inference, with the same outputs up to rounding."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import remove_spectral_norm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.spectral_norm import SpectralNorm

from talkingface.model.layers.hyper_conv import HyperConv


def optimize_for_inference(net: nn.Module) -> nn.Module:
    """Copy ``net`` in evaluation mode, with folded norms and channels_last weights.

    A BatchNorm with fixed statistics is folded into the convolution before it, and a spectral norm
    with fixed vectors into its weights. Modules with a method ``fuse_for_inference`` fuse
    themselves. channels_last is the fastest layout for convolutions on CPUs. The outputs differ
    from those of ``net.eval()`` by rounding only, usually below 1e-5 on images in 0..1. The
    state_dict of the copy has other names: save the original.

    Args:
        net: any network; it is not changed.

    Returns:
        A copy of the same class on the same device, without gradients.
    """
    for module, name in _spectral_norms(net):  # deepcopy needs leaf tensors
        setattr(module, name, getattr(module, name).detach())
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    for module, name in _spectral_norms(fast):
        remove_spectral_norm(module, name)
    _fold_batch_norms(fast)
    for module in list(fast.modules()):
        if hasattr(module, "fuse_for_inference"):
            module.fuse_for_inference()
    fast.requires_grad_(False)
    return fast.to(memory_format=torch.channels_last)


def _spectral_norms(net: nn.Module) -> list[tuple[nn.Module, str]]:
    """Modules with a spectral norm, and the name of its weight."""
    return [
        (module, hook.name)
        for module in net.modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, SpectralNorm)
    ]


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold each BatchNorm that directly follows a convolution inside an ``nn.Sequential``.

    Only there is the order of the children the order of the computation.
    """
    for child in module.children():
        _fold_batch_norms(child)
    if not isinstance(module, nn.Sequential):
        return
    for index in range(len(module) - 1):
        conv, norm = module[index], module[index + 1]
        if type(norm) is not nn.BatchNorm2d or not norm.track_running_stats:
            continue
        # Exact types without hooks: convolutions with spectral norm are subclasses or have hooks.
        if type(conv) is nn.Conv2d and not conv._forward_pre_hooks:
            module[index] = fuse_conv_bn_eval(conv, norm)
        elif type(conv) is nn.ConvTranspose2d and conv.groups == 1 and not conv._forward_pre_hooks:
            module[index] = fuse_conv_bn_eval(conv, norm, transpose=True)
        elif type(conv) is HyperConv:
            _fold_into_generators(conv, norm)
        else:
            continue
        module[index + 1] = nn.Identity()


def _fold_into_generators(conv: HyperConv, norm: nn.BatchNorm2d) -> None:
    """Fold a BatchNorm into the linear layers that generate a hyper-conv's kernel and bias."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean * scale
    if norm.affine:
        shift = shift * norm.weight + norm.bias
        scale = scale * norm.weight
    per_kernel_value = scale.repeat_interleave(conv.channels * 9)  # generated as (C_out, C_in, 9)
    conv.hyperkernel.weight.mul_(per_kernel_value.unsqueeze(1))
    conv.hyperkernel.bias.mul_(per_kernel_value)
    conv.hyperbias.weight.mul_(scale.unsqueeze(1))
    conv.hyperbias.bias.mul_(scale).add_(shift)
