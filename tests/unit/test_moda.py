"""MODA's networks: time, batch, masks, randomness, files of other origin, and the configuration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.data.dataprocess.moda.sound import (
    at_frames,
    frames_of,
    normalised,
    samples_of,
    with_context,
)
from talkingface.errors import ConfigError, WeightsError
from talkingface.model.audio_driven_talkingface.moda import moda_networks as nets
from talkingface.model.audio_driven_talkingface.moda.modarenderer import fold
from talkingface.model.layers.windows import map_windows, window_starts
from talkingface.model.weights import load_into

UNITS = {"lips": 1.0, "eyes": 1.0, "head": [1.0] * 7, "torso": [1.0] * 3}


@pytest.fixture(scope="module")
def net() -> nets.MODANet:
    torch.manual_seed(0)
    made = nets.MODANet(40).eval()
    with torch.no_grad():  # so that every branch matters
        for name, value in made.named_parameters():
            if name.endswith("weight") and value.ndim == 2:
                value.normal_(0, 1.5 / value.shape[1] ** 0.5)
    return made


def inputs(batch: int, frames: int, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    sound = torch.randn(batch, frames, 40, generator=generator)
    return sound, torch.randn(batch, 478, 3, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 75, 300, 601, 1200])
def test_any_length(net, frames):
    made = net(*inputs(1, frames))
    sizes = {part: made[part].shape[1:] for part in nets.PARTS}
    assert sizes == {part: (frames, width) for part, width in nets.PARTS.items()}


@torch.no_grad()
def test_the_short_branch_hears_nothing_of_the_future(net):
    block = net.temporal_body.short_layer
    sound = torch.randn(1, 200, 128)
    subject = torch.randn(1, 1, 128).expand(-1, 200, -1)
    before = block(subject, sound)
    sound[:, 140] += 1.0
    changed = (block(subject, sound) - before).abs().amax(dim=(0, 2)) > 1e-6
    assert not changed[:140].any() and changed[140] and changed[140:].sum() > 30


@torch.no_grad()
def test_fused_attention_is_the_plain_formulation(net):
    """With PyTorch's own layers, the official masks and buffers."""
    short, long = net.temporal_body.short_layer, net.temporal_body.long_layer
    sound, subject = torch.randn(2, 300, 128), torch.randn(2, 300, 128)
    x = subject + short.ppe.pe[:, :300]
    bias, aligned = short.biased_mask[0, :300, :300], short.memory_mask[:300, :300]
    plain = short.decoder(x, sound, tgt_mask=bias, memory_mask=aligned)
    assert torch.allclose(short(subject, sound), plain, atol=1e-5)
    u = subject + long.embedding.pe[:300, 0] + sound
    mu = long.to_mu(long.encoder(u))
    causal = torch.full((300, 300), float("-inf")).triu(1)
    plain = long.out(long.decoder(u, long.decode_latent(mu), tgt_mask=causal))
    made, found, _ = long(subject, sound, None, None)
    assert torch.allclose(found, mu, atol=1e-5) and torch.allclose(made, plain, atol=1e-5)


@torch.no_grad()
def test_neighbours_in_the_batch_change_nothing_but_in_the_legacy_form(net):
    sound, subject = inputs(3, 40)
    together, alone = net(sound, subject), net(sound[2:], subject[2:])
    for part in nets.PARTS:
        assert torch.allclose(together[part][2], alone[part][0], atol=1e-5)
    legacy = nets.MODANet(40, legacy_pe=True, legacy_mask=True).eval()
    legacy.load_state_dict(net.state_dict())
    together, alone = legacy(sound, subject), legacy(sound[2:], subject[2:])
    assert not torch.allclose(together["head"][2], alone["head"][0], atol=1e-3)


@torch.no_grad()
def test_padding_changes_nothing(net):
    sound, subject = inputs(1, 50)
    valid = torch.arange(80)[None] < 50
    padded = torch.cat([sound, torch.randn(1, 30, 40)], dim=1)
    made, short = net(padded, subject, valid=valid), net(sound, subject)
    for part in nets.PARTS:
        assert torch.allclose(made[part][:, :50], short[part], atol=1e-5)


def test_padding_takes_no_part_in_batch_statistics():
    block = nets.MLP(4, 3, 8, 2)
    x = torch.randn(2, 10, 4)
    valid = torch.ones(2, 10, dtype=torch.bool)
    valid[1, 4:] = False
    made = block(x, valid)
    again = block.layers(x[valid])
    assert torch.allclose(made[valid], again, atol=1e-6) and not made[~valid].any()


@torch.no_grad()
def test_temperature_and_seed(net):
    sound, subject = inputs(1, 60)

    def head(temperature: float, seed: int):
        noise = torch.randn(1, 60, 128, generator=torch.Generator().manual_seed(seed))
        return net(sound, subject, noise=temperature * noise)["head"]

    assert torch.equal(net(sound, subject)["head"], net(sound, subject)["head"])
    assert torch.allclose(head(0.0, 1), net(sound, subject)["head"], atol=1e-6)
    assert torch.equal(head(1.0, 1), head(1.0, 1))
    assert (head(1.0, 1) - head(1.0, 2)).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("body", ["lstm", "short", "long", "none"])
def test_ablations_run_and_only_the_long_branch_is_random(body):
    network = nets.MODANet(40, body=body).eval()
    sound, subject = inputs(1, 30)
    noise = torch.randn(1, 30, 128)
    plain, drawn = network(sound, subject), network(sound, subject, noise=noise)
    assert plain["lips"].shape == (1, 30, 120)
    assert torch.equal(plain["head"], drawn["head"]) == (body != "long")


def test_the_subject_of_a_one_person_corpus_does_not_explode():
    """Batch statistics of equal codes have no variance (spec B4); layer normalisation is safe."""
    subject = torch.randn(1, 1434)
    moved = {}
    for norm in ("layer", "batch"):
        torch.manual_seed(0)
        block = nets.MLP(1434, 128, 128, 3, norm)
        for _ in range(300):  # training on one subject only
            block(subject.expand(4, -1))
        block.eval()
        with torch.no_grad():
            change = (block(subject * 1.01) - block(subject)).norm() / block(subject).norm()
        moved[norm] = float(change)
    assert moved["layer"] < 0.1 and moved["batch"] > 10 * moved["layer"]


def test_batches_of_one_subject_leave_the_statistics_alone():
    model = model_of("MODA", **{"model_params.subject_norm": "batch"}).train()
    model.statistics.load({"norm_stats": UNITS})
    norm = model.network.subject_encoder_head.layers[1]

    def step(batch: int, same: bool) -> torch.Tensor:
        subject = torch.randn(1, 478, 3).expand(batch, -1, -1).clone()
        if not same:
            subject = torch.randn(batch, 478, 3)
        before = norm.running_mean.clone()
        made = model.forward_train(
            {
                "sound": torch.randn(batch, 8, 3520),
                "subject": subject,
                "inside": torch.ones(batch, 8),
            }
        )
        assert torch.isfinite(made["lips"]).all()
        return (norm.running_mean - before).abs().max()

    assert step(1, True) == 0 and step(3, True) == 0 and step(3, False) > 0


@torch.no_grad()
def test_a_sequence_is_mapped_in_windows_of_the_training_length():
    model = model_of("MODA", **{"data.window": 20}).eval()
    model.statistics.load({"norm_stats": UNITS})
    asked = []

    def heard(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return np.zeros((stop - start, 3520), np.float32)

    made = model.sequence(heard, np.zeros((478, 3), np.float32), 45)
    assert asked == [(0, 20), (10, 30), (20, 40), (25, 45)] and made["lips"].shape == (45, 120)


def test_a_trained_wav2vec2_has_gradients_everywhere_and_takes_tiny_windows():
    """Several processes would wait for a parameter without one."""
    pytest.importorskip("transformers")
    encoder = {"kind": "wav2vec2", "weights": "random", "layers": 2, "freeze": False}
    model = model_of("MODA", audio_encoder=encoder).train()
    model.statistics.load({"norm_stats": UNITS})
    for frames in (5, 30):
        batch = {
            "sound": torch.randn(2, 640 * frames),
            "subject": torch.randn(2, 478, 3),
            "inside": torch.ones(2, frames),
        }
        made = model.forward_train(batch)
        model.zero_grad()
        sum(value.square().mean() for value in made.values()).backward()
        wanted = {k for k, p in model.named_parameters() if p.requires_grad}
        without = {k for k, p in model.named_parameters() if p.grad is None} & wanted
        assert without == set()


# -- files ---------------------------------------------------------------------------------------


def model_of(name: str, **overrides):
    return build_model(load_config(name, "Synthetic", preset="tiny", overrides=overrides))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", ["MODA", "MODAFaCo", "MODARenderer"])
def test_official_names_load_with_and_without_module(name, prefix):
    model = model_of(name)
    state = {
        prefix + key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in model.network.state_dict().items()
    }
    load_into(model, state)
    key = next(iter(model.network.state_dict()))
    assert torch.equal(model.network.state_dict()[key], state[prefix + key])


def test_tables_of_another_length_are_computed_again():
    model = model_of("MODA")
    other = nets.MODANet(4 * 80 * 11, 4, length=1200, period=25).state_dict()
    before = model.network.temporal_body.short_layer.ppe.pe.clone()
    load_into(model, other)
    assert torch.equal(model.network.temporal_body.short_layer.ppe.pe, before)
    other.pop("lipmotion_tail.layers.0.weight")
    with pytest.raises(WeightsError, match="1 of .* missing: lipmotion_tail"):
        load_into(model, other)


def test_weights_with_batch_statistics_name_the_setting():
    model = model_of("MODA")
    other = nets.MODANet(4 * 80 * 11, 4, subject_norm="batch").state_dict()
    with pytest.raises(WeightsError, match="subject_norm=batch"):
        load_into(model, other)


def test_old_weight_norm_names_of_the_sound_encoder_load():
    pytest.importorskip("transformers")
    overrides = {"audio_encoder": {"kind": "wav2vec2", "weights": "random", "layers": 1}}
    model = model_of("MODA", **overrides)
    state = model.network.state_dict()
    new = "audio_encoder.encoder.pos_conv_embed.conv.parametrizations.weight.original"
    assert f"{new}0" in state
    old = "audio_encoder.encoder.pos_conv_embed.conv.weight_"
    state[f"{old}g"], state[f"{old}v"] = state.pop(f"{new}0"), state.pop(f"{new}1")
    load_into(model, {f"module.{key}": value for key, value in state.items()})
    encoder = model.train().network.audio_encoder
    assert not encoder.training  # frozen by default
    assert not any(value.requires_grad for value in encoder.parameters())


def test_outputs_without_their_units_are_refused_and_official_ones_have_some():
    with pytest.raises(WeightsError, match="std_mode=none"):
        model_of("MODA").units()
    units = model_of("MODA", **{"model_params.std_mode": "none"}).units()
    # Shares of a square of 768 px; places in it become those of 512 px, sizes the inverse.
    assert float(units["lips"]) == 768
    assert units["head"].tolist() == pytest.approx([1, 1, 1, 2 / 3, 2 / 3, 2 / 3, 1.5])
    with pytest.raises(WeightsError, match="norm_stats"):
        _ = model_of("MODAFaCo").units


def test_an_older_composer_is_named():
    model = model_of("MODAFaCo")
    with pytest.raises(WeightsError, match="older revision"):
        load_into(model, {"driven_encoder.layers.0.weight": torch.zeros(256, 300)})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"audio_encoder.kind": "wav2vec2"}, "audio_encoder.weights"),
        ({"audio_encoder.freeze": False}, "wav2vec2 only"),
        ({"data.rand_stretch": True, "audio_encoder.kind": "apc"}, "rand_stretch"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        load_config("MODA", "Synthetic", overrides=keys)


def test_a_folder_without_wav2vec2_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(WeightsError, match="audio_encoder.weights"):
        nets.wav2vec2(str(tmp_path))


# -- sequences -----------------------------------------------------------------------------------


def test_windows_cover_everything_and_the_last_is_full():
    assert window_starts(100, 300, 150) == [0]
    assert window_starts(300, 300, 150) == [0]
    assert window_starts(700, 300, 150) == [0, 150, 300, 400]


@pytest.mark.parametrize("count", [1, 10, 37, 100])
def test_cross_faded_windows_have_no_seam(count):
    line = torch.linspace(0, 1, count)[:, None]
    made = map_windows(lambda a, b: {"x": line[a:b]}, count, 12, 5)["x"]
    assert torch.allclose(made, line, atol=1e-6)
    # Windows that disagree: no step is larger than the fade allows.
    numbers = iter(range(1000))
    level = map_windows(lambda a, b: {"x": torch.full((b - a, 1), float(next(numbers)))}, count,
                        12, 6)["x"]  # fmt: skip
    assert level.diff(dim=0).abs().max() < 0.5 if count > 1 else True


def test_rows_of_120_hz_at_30_frames_per_second_are_those_of_the_released_code():
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    assert np.allclose(at_frames(rows, 10, 30.0), rows.reshape(10, 12))
    slower = at_frames(rows, 8, 25.0)
    assert slower.shape == (8, 12) and np.isfinite(slower).all()
    assert at_frames(rows[:0], 3, 25.0).shape == (3, 12)


def test_samples_and_frames_do_not_drift():
    assert samples_of(1600, 1601, 30.0).start == 853333  # an integer 533 per frame would lose 533
    assert frames_of(16000, 25.0) == 25 and frames_of(10, 25.0) == 1


def test_context_repeats_the_ends():
    values = np.arange(5, dtype=np.float32)[:, None]
    assert with_context(values, 0, 2, 1).tolist() == [[0, 0, 1], [0, 1, 2]]
    assert with_context(values, 4, 5, 2).tolist() == [[2, 3, 4, 4, 4]]


def test_silence_is_normalised_to_silence():
    assert not normalised(np.zeros(100)).any()
    wave = normalised(np.random.default_rng(0).normal(3, 2, 10_000))
    assert abs(wave.mean()) < 1e-3 and abs(wave.std() - 1) < 1e-3


def test_time_is_folded_into_the_trained_range():
    frames = torch.arange(12).float()
    assert fold(frames, 4).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]
    assert fold(frames, None).tolist() == frames.tolist()
