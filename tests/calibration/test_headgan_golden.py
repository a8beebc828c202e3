"""HeadGAN against outputs of the released networks and of the released audio features."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from talkingface.data.dataprocess.headgan.lowlevel import lowlevel_features
from talkingface.model.fuse import optimize_for_inference
from talkingface.model.image_driven_talkingface.headgan import headgan_networks as nets
from talkingface.model.layers.warp import warp

_NETWORKS = {
    "G": nets.HeadGANGenerator,
    "G_noaudio": lambda: nets.HeadGANGenerator(audio=0),
    "G_noflow": lambda: nets.HeadGANGenerator(use_flow=False),
    "G_nops": lambda: nets.HeadGANGenerator(pixelshuffle=False),
    "D": lambda: nets.HeadGANDiscriminator(6),
    "Dm": lambda: nets.HeadGANDiscriminator(303),
}
_SIZES = {
    "G": (51_750_502, 232),
    "G_noaudio": (45_908_134, 196),
    "G_noflow": (21_781_763, 148),
    "G_nops": (10_484_646, 268),
    "D": (5_537_410, 38),
    "Dm": (6_145_666, 38),
}


@pytest.fixture(scope="module")
def reference(golden):
    return golden.load("headgan")


@cache
def network(reference, name: str) -> torch.nn.Module:
    """With the reference weights, which must fit by name and shape."""
    net = _NETWORKS[name]().eval()
    net.load_state_dict(reference.state_dict(name))
    return net


def check(reference, case: str, outputs) -> None:
    wanted = reference.cases[case]["outputs"]
    for result in reference.check(case, {key: outputs[key] for key in wanted}):
        assert result, result


@pytest.mark.parametrize("name", _SIZES)
def test_names_and_sizes(reference, name):
    net = network(reference, name)
    parameters = sum(p.numel() for p in net.parameters())
    assert (parameters, len(net.state_dict())) == _SIZES[name]


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("case", ["G", "G_rect", "G_noaudio", "G_noflow", "G_nops"])
def test_generator(reference, case, fused):
    """Also with folded spectral norms, fused SPADEs and a reference that was encoded before."""
    net = network(reference, reference.cases[case].get("net", case))
    given = reference.inputs(case)
    pose = (given["ref_pncc"], given["ref_rgb"])
    encoded = None
    if fused:
        net = optimize_for_inference(net)
        encoded = net.encode_reference(*pose)
    made = net(given["pncc"], *pose, given.get("audio"), encoded)
    outputs = {"image": made.image, "warped": made.warped, "flow": made.flow, "mask": made.mask}
    outputs |= {f"feat{level}": maps for level, maps in enumerate(made.features)}
    check(reference, case, outputs)


@torch.no_grad()
def test_discriminators(reference):
    given = reference.inputs("D")
    judged = {"D": network(reference, "D")(torch.cat([given["pncc"], given["image"]], 1))}
    given = reference.inputs("Dm")
    tiled = given["audio"][:, :, None, None].expand(-1, -1, 64, 64)
    judged["Dm"] = network(reference, "Dm")(torch.cat([tiled, given["mouth"]], 1))
    for case, scales in judged.items():
        outputs = {
            f"d{scale}_l{layer}": maps
            for scale, found in enumerate(scales)
            for layer, maps in enumerate(found)
        }
        check(reference, case, outputs)


def test_warp(reference):
    given = reference.inputs("warp")
    check(reference, "warp", {"out": warp(given["image"], given["flow"])})


@pytest.mark.parametrize("case", ["audio84", "audio84_30fps", "audio84_44k"])
def test_low_level_features(reference, case):
    stored = reference.inputs(case)
    rate, fps = int(stored["sr"]), float(stored["fps"])
    wave = np.asarray(stored["wave"], np.float64) / 32768
    made = lowlevel_features(wave, rate, fps, legacy_hop=True)
    wanted = reference.cases[case]["outputs"]["feat"]["shape"][0]
    check(reference, case, {"feat": made[:wanted]})
    if case == "audio84":  # whole-sample steps: nothing drifts, both forms agree
        assert np.allclose(lowlevel_features(wave, rate, fps)[:wanted], made[:wanted], atol=1e-6)
