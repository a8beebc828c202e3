"""Live Speech Portraits against the official code: names, sizes and outputs of every step."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
import pytest
import torch

from talkingface.data.dataprocess.lsp import motion
from talkingface.data.dataprocess.lsp.drawing import draw_feature_map
from talkingface.data.media.apc_mel import apc_mel
from talkingface.model.audio_driven_talkingface.lsp.lsp_motion_networks import (
    Audio2FeatureNet,
    Audio2HeadposeNet,
    PoseGenerator,
    gaussian_nll,
    look_ahead,
)
from talkingface.model.layers.apc_networks import APCEncoder
from talkingface.model.layers.feature2face_networks import (
    Feature2FaceDiscriminator,
    Feature2FaceNet,
)
from talkingface.model.layers.manifold import ManifoldProjection

_NETWORKS = {
    "apc": partial(APCEncoder, postnet=False),
    "a2f": Audio2FeatureNet,
    "a2h": Audio2HeadposeNet,
    "a2h_gen": Audio2HeadposeNet,
    "f2f_normal": Feature2FaceNet,
    "f2f_large": partial(Feature2FaceNet, "large"),
    "f2f_D": Feature2FaceDiscriminator,
}
# Entries, numbers with buffers, trainable parameters, sha256 of the sorted "key:d0,d1" lines:
# measured on the official code.
_SIGNATURES = {
    "apc": (12, 4_064_256, 4_064_256,
            "f9feccac04f5f31ac39d65a0e3effab3149f2b6ec5f982373404106fe582c746"),
    "a2f": (37, 3_067_470, 3_064_395,
            "02ef6c76abbf76dd7f8448ad7a585562e38a943a798eda847028625262488e0f"),
    "a2h": (185, 4_267_940, 4_266_915,
            "d61b2abcc80b0e00717abfe9d703ca52ce9afd0c3eecd690b108c8da4730798e"),
    "f2f_normal": (261, 76_235_755, 76_203_840,
                   "591bba3312e9e59688616dcc66915d070026935f31a06ec4bdc087d45e97f1e8"),
    "f2f_large": (441, 121_843_721, 121_789_760,
                  "d2281244b33fcc81be46f4be61cf747bf6e3fe84ab6aed493f9a6a331799152f"),
    "f2f_D": (50, 5_563_272, 5_559_682,
              "cdcc82f64dab326dad1c2ecd06bccb894acd34d02a0025fadfedaca3903caa24"),
}  # fmt: skip


@pytest.fixture(scope="module")
def reference(golden):
    return golden.load("lsp")


def network(reference, name: str) -> torch.nn.Module:
    net = _NETWORKS[name]().eval()
    net.load_state_dict(reference.state_dict(name))
    return net


def check(reference, case: str, **outputs) -> None:
    for result in reference.check(case, outputs):
        assert result, result


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


def test_the_small_generator_has_the_size_of_pix2pix():
    with torch.device("meta"):
        net = Feature2FaceNet("small")
    assert len(net.state_dict()) == 82
    # 54,434,435 with the 23 input channels that it was declared with.
    assert sum(p.numel() for p in net.parameters()) == 54_434_435 - 10 * 64 * 16


@pytest.mark.parametrize("case", ["mel", "mel_sine"])
def test_mel(reference, case):
    check(reference, case, mel=apc_mel(reference.input_np(case, "wave")))


@torch.no_grad()
def test_apc(reference):
    net = network(reference, "apc")
    check(reference, "apc", feat=net(reference.inputs("apc")["mel"]))
    mel = reference.inputs("apc_batch")["mel"]
    features = net(mel)
    features[1, 25:] = 0  # the reference has the lengths 40 and 25
    check(reference, "apc_batch", feat=features)


@torch.no_grad()
def test_audio2feature(reference):
    net = network(reference, "a2f")
    check(reference, "a2f", pts=net(reference.inputs("a2f")["audio"]))
    speech = reference.inputs("a2f_generate")["audio"].reshape(40, -1)
    check(reference, "a2f_generate", pts=net(look_ahead(speech, 18)[None])[0, 18:])


@torch.no_grad()
@pytest.mark.parametrize(("case", "length"), [("a2h", 1), ("a2h_train_len", 240)])
def test_audio2headpose(reference, case, length):
    net = network(reference, "a2h")
    assert net.receptive_field == 255
    params = net(*reference.inputs(case).values(), output_length=length)
    check(reference, case, params=params)
    if length == 1:
        check(reference, case, mean=net.sample(params[:, 0], 0.0, None)[None])


def test_incremental_generation_gives_the_official_poses(reference):
    net = network(reference, "a2h_gen")
    rows = reference.inputs("a2h_generate")["audio"].reshape(65, 1024)
    made = list(PoseGenerator(net, sigma=0.0).generate(rows))
    check(reference, "a2h_generate", pose=torch.stack(made))


def test_gaussian_nll(reference):
    check(reference, "gmm_nll", loss=gaussian_nll(**reference.inputs("gmm_nll"))[None])


def test_manifold_projection(reference):
    values = reference.inputs("lle")
    manifold = ManifoldProjection(values["database"], ridge=0.0)
    rows = manifold.nearest(values["feat"])
    weights = manifold.weights(values["feat"], rows)
    check(reference, "lle", index=rows, weight=weights, feat=manifold(values["feat"]))


@pytest.mark.parametrize("case", ["draw", "draw_shifted", "draw_no_shoulder"])
def test_feature_map(reference, case):
    values = {key: reference.input_np(case, key) for key in reference.cases[case]["inputs"]}
    drawn = draw_feature_map(values["landmarks"], values.get("shoulders"))
    result = reference.compare(case, "map", drawn, tol=0.002)
    assert result, result


def test_projection_and_angles(reference):
    values = {k: reference.input_np("project", k) for k in reference.cases["project"]["inputs"]}
    pose = values["pose"]
    uv = motion.project(
        values["points"], pose[:, :3], pose[:, 3:], float(values["scale"]), values["intrinsic"]
    )
    check(reference, "project", uv=uv)
    angles = reference.input_np("euler", "angles")
    check(reference, "euler", out=motion.euler_to_matrix(angles))
    np.testing.assert_allclose(
        motion.euler_to_matrix(motion.matrix_to_euler(motion.euler_to_matrix(angles))),
        motion.euler_to_matrix(angles),
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("case", "factors"),
    [
        ("amp_XY", (1.5, 1.7)),
        ("amp_XYZ", (1.5, 1.6, 1.7)),
        ("amp_delta", (0.8,)),
        ("amp_LowerMore", (1.1, 1.2, 1.3, 1.4, 1.5, 1.6)),
    ],
)
def test_amplification(reference, case, factors):
    points = reference.input_np(case, "points")
    check(reference, case, out=motion.amplify_mouth(points, case.split("_")[1], factors))


def test_smoothing_and_lip_repair(reference):
    points = reference.input_np("smooth_mouth", "points")
    check(reference, "smooth_mouth", out=motion.smooth_motion(points, 2))
    pose = reference.input_np("smooth_pose", "pose")
    parts = motion.smooth_motion(pose[:, :3], 5), motion.smooth_motion(pose[:, 3:], 10)
    check(reference, "smooth_pose", out=np.concatenate(parts, axis=1))
    flipped = reference.input_np("lip_repair", "points")
    check(reference, "lip_repair", out=motion.repair_lips(flipped))


@torch.no_grad()
@pytest.mark.parametrize("name", ["f2f_normal", "f2f_large"])
def test_feature2face(reference, name):
    values = reference.inputs(name)
    image = network(reference, name)(values["edge"].float(), values["cand"])
    check(reference, name, image=image)


@torch.no_grad()
def test_discriminator(reference):
    maps = network(reference, "f2f_D")(reference.inputs("f2f_D")["x"])
    outputs = {f"d{d}_l{n}": value for d, scale in enumerate(maps) for n, value in enumerate(scale)}
    check(reference, "f2f_D", **outputs)
