"""HyperLips against the official code: key names, parameter counts and outputs.

The signatures need nothing. The outputs need the folder ``golden`` below ``TALKINGFACE_SHARED``
(default: ``shared`` next to the repository); without it these tests are skipped.
"""

from __future__ import annotations

import hashlib
from functools import partial

import pytest
import torch

from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import (
    HyperCtrolDiscriminator,
    HyperLipsBaseNet,
    SyncNetColor,
)
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlipshr_networks import (
    HRDecoder,
    HRDecoderDiscQual,
)

# Entries, numbers with buffers, trainable parameters, sha256 of the sorted "key:d0,d1" lines:
# measured on the official code.
_SIGNATURES = {
    "base": (
        787,
        29_767_637,
        29_716_503,
        "add34ec73fe58e98efb2eb809c93b502ebfda7f17f82aaf2821a8a9191e4e5ee",
    ),
    "base_disc": (
        28,
        14_113_793,
        14_113_793,
        "234e4c7054d1bee750e820baf677d1e69131b14fc83988bd449504b67e0a01cd",
    ),
    "sync": (
        231,
        23_007_905,
        22_991_744,
        "2c3e2ca790989244f2de8ca098fa625ac39350bb3fa2b8da789d08eb12a7117b",
    ),
    "hr1": (
        37,
        134_024,
        133_443,
        "362337a47715e7b5327e2f151af311f1b2cd7a9d4f03d0d63cfa55e3c61a3786",
    ),
    "hr2": (
        44,
        171_209,
        170_499,
        "2e9b143a7cdae3addf8f3fe9dc977f57d83c35e6dc7975447b41f81a08d513a0",
    ),
    "hr4": (
        65,
        282_764,
        281_667,
        "84c4d926f1a735b763a2cc17332326a46bf56d20d488c7cf5fd27f7207848516",
    ),
    "hr_disc": (
        20,
        1_887_873,
        1_887_873,
        "af79ff5e264524638f9b83c1d78fd76ae12749135e5af5adef023bf55c93fd21",
    ),
}
_NETWORKS = {
    "base": HyperLipsBaseNet,
    "base_mild": HyperLipsBaseNet,
    "base_disc": HyperCtrolDiscriminator,
    "sync": SyncNetColor,
    "hr1": partial(HRDecoder, 1),
    "hr2": partial(HRDecoder, 2),
    "hr4": partial(HRDecoder, 4),
    "hr_disc": HRDecoderDiscQual,
}


@pytest.fixture(scope="module")
def loaded(golden):
    """Builds each reference network once: name -> (network, its state_dict)."""
    cache: dict[str, tuple[torch.nn.Module, dict]] = {}

    def get(name: str) -> tuple[torch.nn.Module, dict]:
        if name not in cache:
            net = _NETWORKS[name]().eval()
            state = golden.load("hyperlips").state_dict(name)
            net.load_state_dict(state)
            cache[name] = net, state
        return cache[name]

    return get


def _results(golden, net: torch.nn.Module, case: str) -> list:
    reference = golden.load("hyperlips")
    with torch.no_grad():
        out = net(*reference.inputs(case).values())
    names = reference.cases[case]["outputs"]
    return reference.check(
        case, dict(zip(names, out if isinstance(out, tuple) else (out,), strict=True))
    )


@pytest.mark.parametrize("name", _SIGNATURES)
def test_default_network_has_the_official_keys_and_size(name):
    with torch.device("meta"):  # shapes only
        net = _NETWORKS[name]()
    state = net.state_dict()
    lines = [f"{k}:{','.join(map(str, v.shape))}" for k, v in sorted(state.items())]
    found = (
        len(state),
        sum(v.numel() for v in state.values()),
        sum(p.numel() for p in net.parameters()),
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    )
    assert found == _SIGNATURES[name]


@pytest.mark.parametrize("name", _NETWORKS)
def test_keys_and_shapes_equal_the_reference_list(golden, name):
    with torch.device("meta"):
        state = _NETWORKS[name]().state_dict()
    assert golden.key_diff(state, "hyperlips", name) == ([], [], [])


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("base", "base"),
        ("base_mild", "base_mild"),
        ("base_mild", "base_5d"),
        ("base_disc", "base_disc"),
        ("sync", "sync"),
        ("hr1", "hr1"),
        ("hr2", "hr2"),
        ("hr4", "hr4"),
        ("hr_disc", "hr_disc"),
    ],
)
def test_outputs_equal_the_official_code(golden, loaded, name, case):
    net, _ = loaded(name)
    for result in _results(golden, net, case):
        assert result, result


@pytest.mark.parametrize(
    ("name", "case", "key"),
    [
        ("base_mild", "base_mild", "face_encoder.features.0.1.running_mean"),
        ("base_mild", "base_mild", "hyper_control_net.audio_encoder.features.6.block.0.0.weight"),
        ("base_mild", "base_mild", "hyper_control_net.dconv_down2.3.hyperkernel.weight"),
        ("base_mild", "base_mild", "decoder.decode2.gru.hh.0.bias"),
        ("base_disc", "base_disc", "face_encoder_blocks.3.1.conv_block.0.weight"),
        ("sync", "sync", "face_encoder.9.conv_block.1.running_var"),
    ],
)
def test_a_disturbed_weight_is_noticed(golden, loaded, name, case, key):
    net, state = loaded(name)
    net.load_state_dict(golden.perturb(state, key))
    try:
        assert not all(_results(golden, net, case))
    finally:
        net.load_state_dict(state)


def test_a_wrong_stem_eps_is_noticed(golden, loaded):
    net, _ = loaded("base_mild")
    stem_norm = net.face_encoder.features[0][1]
    stem_norm.eps = 1e-3
    try:
        assert not all(_results(golden, net, "base_mild"))
    finally:
        stem_norm.eps = 1e-5


def test_the_inference_copy_stays_within_the_tolerance(golden, loaded):
    from talkingface.model.fuse import optimize_for_inference

    net, _ = loaded("base_mild")
    for result in _results(golden, optimize_for_inference(net), "base_mild"):
        assert result, result
