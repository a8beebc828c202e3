"""Live Speech Portraits as models: official files, sizes, and parts that belong together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from talkingface.components.models import build_model
from talkingface.components.store import ComponentStore
from talkingface.config.config import load_config
from talkingface.errors import ConfigError, WeightsError
from talkingface.model.layers.apc_networks import APCEncoder
from talkingface.model.layers.feature2face_networks import Feature2FaceNet
from talkingface.model.weights import load_into

TINY_FACE = {"model_params": {"image_size": 64, "ngf": 4, "ndf": 4}}


def model_of(name: str, **overrides):
    return build_model(load_config(name, "Synthetic", preset="tiny", overrides=overrides))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", ["APC", "Audio2Feature", "Audio2Headpose", "Feature2Face"])
def test_official_names_load_with_and_without_module(name, prefix):
    model = model_of(name)
    state = {
        prefix + key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in model.network.state_dict().items()
    }
    report = load_into(model, state)
    assert report.matched == len(state)
    key = next(iter(model.network.state_dict()))
    assert torch.equal(model.network.state_dict()[key], state[prefix + key])


def test_apc_files_may_lack_the_training_head_but_nothing_else():
    model = model_of("APC")
    state = APCEncoder(80, 32, 1, postnet=False).state_dict()
    assert load_into(model, state).matched == 4
    state.pop("rnns.0.weight_ih_l0")
    with pytest.raises(WeightsError, match="1 of .* missing: rnns.0"):
        load_into(model, state)


def test_noise_on_the_speech_features_is_for_training_only():
    model, batch = model_of("Audio2Feature", data={"noise": 0.5}), {"audio": torch.rand(4, 9, 64)}
    clean = model.eval().forward_train(batch)["points"]
    assert torch.equal(model.forward_train(batch)["points"], clean)
    model.train()
    for module in model.modules():
        module.training = module is model  # batch statistics would change too
    noisy = model.forward_train(batch)["points"]
    assert (noisy - clean).abs().mean() > 1e-3 * clean.abs().mean()
    assert not torch.equal(noisy, model.forward_train(batch)["points"])
    model.cfg.data.noise = 0.0
    assert torch.equal(model.forward_train(batch)["points"], clean)


def test_a_generator_of_another_size_is_named():
    model = model_of("Feature2Face", **TINY_FACE)
    other = Feature2FaceNet("large", 5, 4).state_dict()
    with pytest.raises(WeightsError, match="model_params.size=large"):
        load_into(model, other)
    deeper = Feature2FaceNet("normal", 6, 4).state_dict()
    with pytest.raises(WeightsError, match="model_params.n_downsample=6"):
        load_into(model, deeper)


@pytest.mark.parametrize("side", [64, 128, 256, 512])
@pytest.mark.parametrize("size", ["normal", "large", "small"])
def test_every_size_of_the_generator_runs_at_every_resolution(size, side):
    levels = side.bit_length() - 2
    with torch.device("meta"):
        network = Feature2FaceNet(size, levels, 4).train()
        made = network(torch.zeros(2, 1, side, side), torch.zeros(2, 12, side, side))
    assert made.shape == (2, 3, side, side)


def test_too_many_levels_are_refused():
    with pytest.raises(ConfigError, match="at most 5"):
        load_config(
            "Feature2Face",
            "Synthetic",
            overrides={"model_params.image_size": 64, "model_params.n_downsample": 6},
        )


def test_without_vgg_weights_its_losses_are_left_out():
    cfg = load_config("Feature2Face", "Synthetic", preset="tiny")
    model = build_model(cfg)
    ComponentStore(cfg).attach_for_training(model)
    assert "vgg" not in model.components
    batch = {
        "feature_map": torch.zeros(2, 1, 64, 64),
        "cand_image": torch.zeros(2, 12, 64, 64),
        "tgt_image": torch.zeros(2, 3, 64, 64),
    }
    assert set(losses_of(model, batch, "generator")) == {"loss", "l1", "gan", "feature_matching"}


def test_vgg_and_style_losses_vanish_for_equal_pictures_only():
    from talkingface.model.losses.perceptual import VGG19Features, vgg_content_and_style

    torch.manual_seed(0)
    network = VGG19Features().eval()
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    same = vgg_content_and_style(network, picture, picture)
    other = vgg_content_and_style(network, -picture, picture)
    assert same[0] == same[1] == 0 and min(other) > 0


def test_the_padded_end_of_a_short_sound_is_no_target_of_apc():
    model = model_of("APC")
    mel = torch.rand(2, 60, 80)
    length = torch.tensor([60, 30])
    changed = mel.clone()
    changed[1, 30:] = 9.0
    first, second = (losses_of(model, {"mel": m, "length": length})["loss"] for m in (mel, changed))
    torch.testing.assert_close(first, second)


def test_official_files_of_a_person_speak_without_any_run(tmp_path, tone_wav):
    """State dicts with ``module.`` and a person in the official inference layout."""
    from conftest import run_command

    from talkingface.data.dataprocess.lsp import files
    from talkingface.data.dataprocess.lsp.window import Window
    from talkingface.data.media.reader import count_frames
    from talkingface.data.media.writer import write_image
    from talkingface.model.audio_driven_talkingface.lsp.lsp_motion_networks import (
        Audio2FeatureNet,
        Audio2HeadposeNet,
    )

    person = tmp_path / "May"
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.3, (80, 73, 3)).astype(np.float32)
    angles, trans = np.full((80, 3), 0.5), np.tile([0.0, 0, 900], (80, 1))
    angles[:, 0] = 179.0
    files.save_fit(person, points, angles, trans)
    camera = np.array([[700.0, 0, 256], [0, 700, 256], [0, 0, 1]])
    files.save_camera(person, 90.0, camera)
    files.save_window(person, Window(1.0, 256, 256))
    files.save_array(person / files.MEAN_POINTS, points.mean(0))
    files.save_array(person / files.SHOULDERS_3D, rng.normal(0, 9, (80, 18, 3)) + (0, 90, 900))
    files.save_array(person / files.DATABASE, rng.normal(0, 0.5, (60, 512)))
    for number in range(4):
        picture = rng.integers(0, 255, (512, 512, 3), np.uint8)
        write_image(person / files.CANDIDATES / f"normalized_full_{number}.jpg", picture)
    networks = {
        "apc": APCEncoder(),
        "audio2feature": Audio2FeatureNet(),
        "audio2headpose": Audio2HeadposeNet(),
        "feature2face": Feature2FaceNet("large", 5, 4),
    }
    keys = []
    for name, network in networks.items():
        prefix = "" if name == "apc" else "module."
        torch.save(
            {prefix + k: v for k, v in network.state_dict().items()}, tmp_path / f"{name}.pkl"
        )
        keys.append(f"--weights.{name}={tmp_path / name}.pkl")
    out = tmp_path / "out.mp4"
    command = [
        *("--infer", "--model=live_speech_portraits", "--preset=May", "--device=cpu", *keys),
        *(f"--source={person}", f"--audio={tone_wav}", f"--output={out}"),
        *("--model_params.image_size=64", "--model_params.ngf=4"),
    ]
    done = run_command(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert count_frames(out, 60) == 120 - 15  # the official end: 15 frames early


def losses_of(model, batch, phase="main"):
    return model.calculate_loss(batch, phase, model.forward_train(batch))
