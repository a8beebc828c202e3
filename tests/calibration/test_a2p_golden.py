"""audio2photoreal against its released code: names, sizes and outputs of every network."""

from __future__ import annotations

import pytest
import torch

from talkingface.model.audio_driven_talkingface.a2p.a2p_guide_networks import (
    GuideTransformer,
    TemporalVertexCodec,
)
from talkingface.model.audio_driven_talkingface.a2p.a2p_networks import FiLMTransformer
from talkingface.model.audio_driven_talkingface.a2p.a2plip_networks import LipRegressor
from talkingface.model.diffusion import Diffusion, guided

VQ = {"frontend": "vqwav2vec", "legacy_positions": True}
_NETWORKS = {
    "face": lambda: FiLMTransformer(lips=LipRegressor(), **VQ),
    "lip": LipRegressor,
    "pose": lambda: FiLMTransformer(104, 256, 6, 8, encoders=0, guide_step=30, **VQ),
    "guide_vq": TemporalVertexCodec,
    "guide2": lambda: GuideTransformer(pad_audio=False, **VQ),
    "guide3": lambda: GuideTransformer(num_audio_layers=3, pad_audio=False, **VQ),
}
_PARAMETERS = {
    "face": 125_492_470,
    "lip": 46_734_326,
    "pose": 43_059_224,
    "guide_vq": 86_248,
    "guide2": 69_943_616,
    "guide3": 88_824_128,
}


@pytest.fixture(scope="module")
def reference(golden):
    return golden.load("a2p")


@pytest.fixture(scope="module")
def network(reference):
    """Networks with the official-style weights; the last one is kept, they are large."""
    kept: dict[str, torch.nn.Module] = {}

    def build(name: str) -> torch.nn.Module:
        if name not in kept:
            kept.clear()
            kept[name] = _NETWORKS[name]().eval()
            kept[name].load_state_dict(reference.state_dict(name))
        return kept[name]

    return build


def check(reference, case: str, outputs) -> None:
    for result in reference.check(case, outputs):
        assert result, result


@pytest.mark.parametrize("name", _PARAMETERS)
def test_names_and_sizes(golden, name):
    net = _NETWORKS[name]()
    assert sum(p.numel() for p in net.parameters()) == _PARAMETERS[name]
    assert golden.key_diff(net.state_dict(), "a2p", name) == ([], [], [])


def motion(values) -> torch.Tensor:
    """Official (B,C,1,T) -> (B,T,C)."""
    return values["x"][:, :, 0].transpose(1, 2)


def conditions(net, values, guide=None):
    lips, count = values.get("lips"), values["x"].shape[-1]
    batch = len(values["x"])
    seen = net.condition(values["audio_feat"], count, lips, guide)
    blind = net.absent(batch, values["audio_feat"].shape[1], count)
    return seen, blind


@torch.no_grad()
def test_face(reference, network):
    net, values = network("face"), reference.inputs("face")
    seen, blind = conditions(net, values)
    x, t = motion(values), values["t"]
    made = {"cond": net.denoise(x, t, seen), "uncond": net.denoise(x, t, blind)}
    check(reference, "face", made)
    # The training pass, in which some samples go without sound, gives the same.
    keep = torch.tensor([True, False])
    mixed = net.condition(values["audio_feat"], 60, values["lips"], keep=keep)
    both = net.denoise(x, t, mixed)
    torch.testing.assert_close(both[0], made["cond"][0], rtol=0, atol=1e-4)
    torch.testing.assert_close(both[1], made["uncond"][1], rtol=0, atol=1e-4)


@torch.no_grad()
def test_guided_sampling_of_the_face(reference, network):
    net, values = network("face"), reference.inputs("face_ddim5")
    seen, blind = conditions(net, values)
    made = Diffusion().sample(guided(net.denoise, seen, blind, 2.5), motion(values), 5)
    check(reference, "face_ddim5", {"x0": made.transpose(1, 2)[:, :, None]})


@torch.no_grad()
@pytest.mark.parametrize("case", ["frontend_vq", "frontend_vq_log"])
def test_hearing(reference, network, case):
    net = network("face")
    extractor = net.audio_model.feature_extractor
    extractor.log_compression = case.endswith("log")
    try:
        check(reference, case, {"feat": net.encode_sound(reference.inputs(case)["wave"])})
    finally:
        extractor.log_compression = False


@torch.no_grad()
def test_lips(reference, network):
    net = network("lip")
    tokens = reference.inputs("lip")["tokens"]
    check(reference, "lip", {"verts": net.of_tokens(tokens, 60)})
    wave = reference.inputs("lip_wave")["wave"]
    made = {"tokens": net.audio_encoder(wave), "verts": net(wave)}
    check(reference, "lip_wave", made)


@torch.no_grad()
def test_pose(reference, network):
    net, values = network("pose"), reference.inputs("pose")
    seen, blind = conditions(net, values, values["keyframes"])
    x, t = motion(values), values["t"]
    made = {"cond": net.denoise(x, t, seen), "uncond": net.denoise(x, t, blind)}
    check(reference, "pose", made)


@torch.no_grad()
def test_key_poses_as_tokens(reference, network):
    net, pose = network("guide_vq"), reference.inputs("guide_vq")["pose"]
    codes = net.encode(pose)
    made = {
        "latent": net.encoder(pose),
        "codes": codes,
        "recon": net.decode(codes),
        "forward": net(pose)[0],
    }
    check(reference, "guide_vq", made)
    given = reference.inputs("guide_vq_decode")["codes"]
    check(reference, "guide_vq_decode", {"pose": net.decode(given)})


@torch.no_grad()
def test_greedy_guide(reference, network):
    net = network("guide2")
    condition = net.condition(reference.inputs("guide_greedy")["audio_feat"], 30)
    made = net.generate(condition, 3, top_p=0.0)
    check(reference, "guide_greedy", {"tokens": made.flatten(1)})


@torch.no_grad()
@pytest.mark.parametrize("case", ["guide2", pytest.param("guide3", marks=pytest.mark.slow)])
def test_guide(reference, network, case):
    net, values = network(case), reference.inputs(case)
    features, tokens = values["audio_feat"], values["tokens"]
    none = torch.zeros(len(tokens), dtype=torch.bool)
    made = {
        "logits": net.logits(tokens, net.condition(features, 30)),
        "uncond": net.logits(tokens, net.condition(features, 30, none)),
    }
    check(reference, case, made)


@pytest.mark.slow
def test_files_in_their_places_give_motion(reference, tmp_path):
    """Parts of a person as they are published, unused heads and all, by one command; the guide with
    three audio layers is recognised by its names."""
    import numpy as np
    from conftest import run_command

    from talkingface.config.config import load_config
    from talkingface.data.dataprocess.a2p.files import SceneFiles, learn_stats

    parts = tmp_path / "checkpoints/A2P"
    parts.mkdir(parents=True)
    for name in ("face", "pose"):
        torch.save(reference.state_dict(name, extra=True), parts / f"PXB184_{name}.pt")
    guide = {"iteration": 5, "model_state_dict": reference.state_dict("guide3", extra=True)}
    torch.save(guide, parts / "PXB184_guide.pt")
    torch.save({"net": reference.state_dict("guide_vq")}, parts / "PXB184_vq.pth")
    cfg = load_config(
        "A2PFace", "SyntheticDyad", preset="tiny", overrides={"root": str(tmp_path / "made")}
    )
    cfg.registry.resolve(cfg.dataset_entry, "source").from_config(cfg).ensure(show_progress=False)
    folder = tmp_path / "dataset/PXB184/data"
    folder.parent.mkdir(parents=True)
    (tmp_path / "made/data").rename(folder)
    stats = learn_stats([SceneFiles.of_folder(folder, "scene01")], wrap=True).content()
    torch.save({**stats, "full_mean": np.zeros(3)}, folder / "data_stats.pth")
    done = run_command(
        [
            "--infer", "--model=A2P", "--dataset=PXB184", "--sampling.steps=4", "--device=cpu",
            f"--audio={folder / 'scene07_audio.wav'}", f"--output={tmp_path / 'out.mp4'}",
        ],
        tmp_path,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "277 tensors" in done.stdout + done.stderr
    for part, width in (("face", 256), ("pose", 104)):
        with np.load(tmp_path / f"out_{part}.npz") as made:
            assert made["motions"].shape[2:] == (made["lengths"][0], width)
            assert np.isfinite(made["motions"]).all()
