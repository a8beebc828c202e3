"""audio2photoreal: diffusion, caches, windows, quantiser, loading of official layouts."""

from __future__ import annotations

import math
from argparse import Namespace

import numpy as np
import pytest
import torch

from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.errors import ConfigError, WeightsError
from talkingface.model.audio_driven_talkingface.a2p.a2p_guide_networks import (
    GuideTransformer,
    TemporalVertexCodec,
)
from talkingface.model.audio_driven_talkingface.a2p.a2p_networks import FiLMTransformer
from talkingface.model.audio_driven_talkingface.a2p.a2plip_networks import LipRegressor
from talkingface.model.component import Component
from talkingface.model.diffusion import Diffusion, guided
from talkingface.model.layers.dyad_sound import DyadSound, LogMelTokens
from talkingface.model.layers.residual_vq import Codebook, ResidualVQ, nucleus_sample
from talkingface.model.sampling_steps import checked_steps, step_counts
from talkingface.model.weights import load_into

HEARD = {"frontend": "logmel", "rate": 48000, "fps": 30, "bands": 8}
SIZES = {"width": 16, "layers": 2, "heads": 2, "ff": 32, "max_frames": 60}


@pytest.fixture
def face() -> FiLMTransformer:
    torch.manual_seed(0)
    lips = LipRegressor(5, 16, 2, 32, 1, 1, frontend="logmel", bands=8)
    return FiLMTransformer(6, encoders=1, lips=lips, **SIZES, **HEARD).eval()


@pytest.fixture
def pose() -> FiLMTransformer:
    torch.manual_seed(0)
    return FiLMTransformer(6, encoders=0, guide_step=10, **SIZES, **HEARD).eval()


@pytest.fixture
def wave() -> torch.Tensor:
    return torch.randn(2, 60 * 1600, 2, generator=torch.Generator().manual_seed(1))


# -- diffusion ------------------------------------------------------------------------------------


def cosine_alphas() -> np.ndarray:
    """Products of 1 - beta, written from the paper."""
    level = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    betas = [min(1 - level((i + 1) / 1000) / level(i / 1000), 0.999) for i in range(1000)]
    return np.cumprod(1 - np.array(betas))


@pytest.mark.parametrize("steps", [500, 100, 50, 8, 5])
def test_ddim_is_the_short_reference(steps):
    """Deterministic DDIM over every (1000/N)-th step, from the formula alone."""
    alphas = cosine_alphas()
    target = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(0)).double()
    noise = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(1)).double()

    def network(x, t):  # any function of both
        return torch.tanh(0.3 * x + target * (1 - t.view(-1, 1, 1) / 1000))

    stride = 1000 // steps
    visited = list(range(0, 1000, stride))[::-1]
    x, made = noise, noise
    for t in visited:
        made = network(x, torch.tensor([t]))
        before = alphas[t - stride] if t >= stride else 1.0
        eps = (x - math.sqrt(alphas[t]) * made) / math.sqrt(1 - alphas[t])
        x = math.sqrt(before) * made + math.sqrt(1 - before) * eps
    seen = []

    def watched(x, t):
        seen.append(int(t[0]))
        return network(x, t)

    found = Diffusion().sample(watched, noise, steps)
    assert seen == visited
    torch.testing.assert_close(found, made, rtol=0, atol=3e-6)


def test_noise_is_added_by_the_cosine_schedule():
    clean, noise = torch.ones(3, 4, 2), torch.full((3, 4, 2), -1.0)
    t = torch.tensor([0, 500, 999])
    made = Diffusion().add_noise(clean, noise, t)
    left = torch.from_numpy(cosine_alphas()[t]).float()
    wanted = left.sqrt() - (1 - left).sqrt()
    torch.testing.assert_close(made, wanted[:, None, None].expand(3, 4, 2), rtol=0, atol=1e-5)


def test_step_counts_that_do_not_divide_are_refused_with_a_way_out():
    assert step_counts()[:5] == [1, 2, 4, 5, 8]
    with pytest.raises(ValueError, match="7 does not divide 1000.*use 8"):
        checked_steps(7)
    with pytest.raises(ConfigError, match=r"sampler\.steps.*143 does not divide 1000.*use 125"):
        load_config("A2PFace", "SyntheticDyad", overrides={"sampler.steps": 143})
    with pytest.raises(ConfigError, match="333 does not divide"):
        load_config("A2P", "SyntheticDyad", overrides={"sampling.steps": 333})


@torch.no_grad()
def test_guidance_in_one_batch_is_that_of_two_passes(face, wave):
    x, t = torch.randn(2, 60, 6), torch.tensor([700, 700])
    seen = face.condition(face.encode_sound(wave), 60, face.lips(wave))
    blind = face.absent(2, face.encode_sound(wave).shape[1], 60)
    one, two = face.denoise(x, t, seen), face.denoise(x, t, blind)
    made = guided(face.denoise, seen, blind, 2.5)(x, t)
    torch.testing.assert_close(made, two + 2.5 * (one - two), rtol=0, atol=1e-5)
    assert not torch.allclose(one, two, atol=1e-3)
    torch.testing.assert_close(guided(face.denoise, seen, blind, 1.0)(x, t), one)


@torch.no_grad()
def test_a_condition_made_once_gives_what_a_new_one_gives_at_each_step(face, wave):
    """Cached sampling against the formulation that hears at every step."""
    noise = torch.randn(2, 60, 6)

    def uncached(x, t):
        both = torch.cat([x, x])
        keep = torch.tensor([True, True, False, False])
        twice = torch.cat([wave, wave])
        seen, blind = face(both, torch.cat([t, t]), twice, keep=keep).chunk(2)
        return blind + 3 * (seen - blind)

    seen = face.condition(face.encode_sound(wave), 60, face.lips(wave))
    cached = guided(face.denoise, seen, face.absent(2, 60, 60), 3.0)
    one, two = (Diffusion().sample(f, noise, 8) for f in (cached, uncached))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


@torch.no_grad()
def test_dropped_key_poses_are_those_of_the_unconditional_pass(pose, wave):
    x, t, keys = torch.randn(2, 60, 6), torch.tensor([10, 900]), torch.randn(2, 6, 6)
    none = torch.zeros(2, dtype=torch.bool)
    made = pose(x, t, wave, keys, none, none)
    torch.testing.assert_close(made, pose.denoise(x, t, pose.absent(2, 60, 60)))
    assert not torch.allclose(made, pose(x, t, wave, keys), atol=1e-3)


@torch.no_grad()
def test_positions_of_sound_are_frames_unless_the_weights_are_official(wave):
    plain = FiLMTransformer(6, encoders=0, **SIZES, frontend="vqwav2vec")
    assert plain._positions(198, 60, torch.device("cpu"))[-1] == pytest.approx(197 * 60 / 198)
    plain.legacy_positions = True
    assert plain._positions(198, 60, torch.device("cpu")) is None


def test_frozen_parts_stay_in_evaluation_mode_and_learn_nothing(face, wave):
    face.train()
    assert not face.lip_model.training and face.training
    face(torch.randn(2, 60, 6), torch.tensor([1, 2]), wave).sum().backward()
    assert all(p.grad is None for p in face.lip_model.parameters())
    assert face.cond_projection.weight.grad is not None


# -- hearing --------------------------------------------------------------------------------------


def test_token_counts_of_vq_wav2vec_are_the_measured_ones():
    sound = DyadSound("vqwav2vec")
    counts = {frames: sound.token_count(frames) for frames in (30, 60, 120, 150, 240, 600)}
    assert counts == {30: 98, 60: 198, 120: 398, 150: 498, 240: 798, 600: 1998}


@pytest.mark.parametrize("fps", [25, 30])
def test_log_mel_gives_one_token_per_frame_at_its_own_time(fps):
    mel = LogMelTokens(48000, fps, 20)
    frame = 48000 // fps
    wave = torch.zeros(1, 20 * frame)
    wave[:, 10 * frame : 11 * frame] = torch.randn(frame)
    made = mel(wave)
    assert made.shape == (1, 20, 80)
    assert made[0].mean(dim=1).argmax() == 10


def test_lips_of_long_sounds_are_heard_in_blocks():
    net = LipRegressor(3, 16, 2, 32, 1, 1, frontend="logmel", bands=8, block=20).eval()
    wave = torch.randn(1, 50 * 1600)
    with torch.no_grad():
        made = net(wave)
        assert made.shape == (1, 50, 3, 3)
        torch.testing.assert_close(made[:, 20:40], net(wave[:, 20 * 1600 : 40 * 1600]))
        torch.testing.assert_close(made[:, 40:], net(wave[:, 40 * 1600 :]))


# -- tokens ---------------------------------------------------------------------------------------


def used(book: Codebook, vectors: torch.Tensor) -> int:
    return len(book.codes(vectors).unique())


@pytest.mark.parametrize(("codes", "batch"), [(256, 20), (64, 64)])
def test_small_batches_do_not_wear_the_codes_out(codes, batch):
    """In a batch with fewer vectors than codes every code is rarely used, and none is dead."""
    torch.manual_seed(0)
    data = torch.randn(4000, 8)
    book = Codebook(8, codes, 0.99, 2.0)
    book.start(data, 10)

    def error() -> float:
        return float((data - book.embed[book.codes(data)]).square().mean())

    before, replaced = error(), 0
    for _ in range(500):
        kept = book.embed.clone()
        part = data[torch.randint(len(data), (batch,))]
        book.follow(part, book.codes(part))
        replaced += int(((book.embed - kept).norm(dim=1) > 0.5).sum())
    assert error() < 1.05 * before
    assert replaced / 500 < 0.02 * codes


def dead_book(legacy: bool) -> tuple[Codebook, torch.Tensor]:
    """Eight codes of which seven lie far from all data, after 50 updates."""
    torch.manual_seed(0)
    vectors = torch.randn(64, 4)
    book = Codebook(4, 8, 0.9, 2.0, legacy)
    places = torch.full((8, 4), 50.0)
    places[0] = 0
    book.embed.copy_(places)
    book.embed_avg.copy_(places)
    book.cluster_size.fill_(1.0)
    for _ in range(50):
        book.follow(vectors, book.codes(vectors))
    return book, vectors


def test_unused_codes_come_back_except_as_released():
    assert used(*dead_book(legacy=False)) > 5
    assert used(*dead_book(legacy=True)) == 1


def test_the_quantiser_starts_from_k_means_also_of_few_vectors():
    torch.manual_seed(0)
    few = torch.randn(5, 4)
    quantiser = ResidualVQ(4, 16, 2)
    quantiser.start(few)
    made, codes, _ = quantiser.eval()(few[None])
    assert codes.shape == (1, 5, 2) and torch.isfinite(made).all()
    torch.testing.assert_close(quantiser.vectors(codes), made, rtol=0, atol=1e-5)
    assert (made[0] - few).square().mean() < 1e-3 * few.square().mean()


def test_each_stage_of_the_quantiser_lowers_the_error():
    torch.manual_seed(0)
    data = torch.randn(2000, 8)
    errors = []
    for depth in (1, 2, 4):
        quantiser = ResidualVQ(8, 32, depth)
        quantiser.start(data)
        errors.append((quantiser.eval()(data[None])[0][0] - data).square().mean())
    assert errors[0] > 1.2 * errors[1] and errors[1] > 1.2 * errors[2]


def test_a_nucleus_holds_the_tokens_before_the_limit_and_always_one():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(2000, 1)
    generator = torch.Generator().manual_seed(0)
    drawn = nucleus_sample(logits, 0.8, generator)
    assert set(drawn.tolist()) == {0, 1}
    assert (drawn == 0).float().mean() == pytest.approx(0.625, abs=0.04)
    drawn = nucleus_sample(logits, 0.81, generator)
    assert set(drawn.tolist()) == {0, 1, 2}
    assert nucleus_sample(logits, 0.0, generator).unique().tolist() == [0]


@pytest.fixture
def guide() -> GuideTransformer:
    torch.manual_seed(0)
    sizes = {"width": 16, "layers": 2, "heads": 2, "ff": 32, "max_frames": 60}
    return GuideTransformer(12, 2, num_audio_layers=1, guide_step=10, **sizes, **HEARD).eval()


@torch.no_grad()
def test_tokens_from_kept_keys_are_those_of_the_whole_pass(guide, wave):
    condition = guide.condition(guide.encode_sound(wave), 60)
    made = guide.generate(condition, 6, top_p=0.0)
    stream = torch.full((2, 1), 12)
    for _ in range(12):
        token = guide.logits(stream, condition)[:, -1].argmax(dim=-1)
        stream = torch.cat([stream, token[:, None]], dim=1)
    assert torch.equal(made.flatten(1), stream[:, 1:])
    more = guide.generate(condition, 6, top_p=0.0, given=made[:, :4])
    assert torch.equal(more, made)


def test_too_short_a_sound_for_unpadded_convolutions_is_an_error_with_figures():
    net = GuideTransformer(12, 2, 16, 1, 2, 32, num_audio_layers=1, pad_audio=False, **HEARD)
    with pytest.raises(ValueError, match="20 tokens of sound are too few: 25"):
        net.condition(torch.zeros(1, 20, net.sound_width), 20)


# -- models ---------------------------------------------------------------------------------------


def tiny(model: str, **more):
    cfg = load_config(model, "SyntheticDyad", preset="tiny", overrides={"device": "cpu", **more})
    torch.manual_seed(0)
    made = build_model(cfg).eval()
    if model == "A2PGuide":
        codec = made.cfg.schema.components(made.cfg)["vq"].build()
        codec.quantizer.start(torch.randn(200, cfg.vq.width))
        made.components["vq"] = Component(codec)
    return made


def speech(frames: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(frames * 1600, 2)).astype(np.float32)


def test_a_sound_of_any_length_becomes_one_motion():
    model = tiny("A2PFace")
    long = model.sample(speech(150), 150, samples=2)  # windows of 60
    assert long.shape == (2, 150, 256) and np.isfinite(long).all()
    assert np.array_equal(long, model.sample(speech(150), 150, samples=2))
    assert not np.array_equal(long, model.sample(speech(150), 150, samples=2, seed=1))
    assert not np.array_equal(long[0], long[1])
    assert model.sample(speech(31), 31).shape == (1, 31, 256)
    # No seam: at the borders of windows the motion changes as anywhere.
    steps = np.abs(np.diff(long[0], axis=0)).mean(axis=1)
    assert steps.max() < 5 * np.median(steps)


def test_key_poses_keep_their_places_in_long_motions():
    """Windows begin at key poses, and the end is not moved."""
    model = tiny("A2PPose")
    starts = []
    inner = model.denoiser.condition

    def watched(features, frames, lips, guide):
        starts.append(guide[0, :, 0].tolist())
        return inner(features, frames, lips, guide)

    model.denoiser.condition = watched
    keys = np.arange(14, dtype=np.float32)[None, :, None].repeat(104, axis=2)
    made = model.sample(speech(137), 137, guide=keys)
    assert made.shape == (1, 137, 104)
    assert [row[0] for row in starts] == [0, 3, 6, 8]  # the last one is full of sound
    assert starts[-1] == [8, 9, 10, 11, 12, 13]


def test_guides_of_long_sounds_go_on_from_the_window_before():
    model = tiny("A2PGuide")
    made = model.tokens(speech(145), 145, samples=2)
    assert made.shape == (2, 15, 2) and made.max() < 16
    assert torch.equal(made[:, :6], model.tokens(speech(145)[: 60 * 1600], 60, samples=2)[:, :6])
    assert model.tokens(speech(7), 7).shape == (1, 1, 2)


def test_missing_frames_and_padding_do_not_count_and_nothing_valid_is_no_error():
    from talkingface.model.audio_driven_talkingface.a2p.a2p_common import masked_mean

    values = torch.tensor([[[1.0], [3.0]], [[5.0], [7.0]]])
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert masked_mean(values, mask) == 0.5  # (1 + 0) / 2; the released code gives NaN


def test_validation_noise_is_the_same_each_time():
    model = tiny("A2PFace").eval()
    motion = torch.zeros(3, 5, 256)
    one, two = (model._noise(motion) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert one[0].tolist() == [100, 300, 500]


def official(network: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + key: value.clone() for key, value in network.state_dict().items()}


@pytest.mark.parametrize("holder", [None, "model_state_dict", "net"])
def test_official_files_load_strictly_without_their_unused_heads(holder):
    model = tiny("A2PFace")
    state = official(model.denoiser)
    extra = {
        "audio_model.vector_quantizer.vars": torch.zeros(1, 4, 4),
        "audio_model.wav2vec_predictions.project_to_steps.weight": torch.zeros(2),
        "lip_model.audio_encoder.wav2vec_model.wav2vec_predictions.project_to_steps.bias":
            torch.zeros(2),
    }  # fmt: skip
    content = {**state, **extra}
    content = content if holder is None else {holder: content, "iteration": 5}
    load_into(model, content)
    for key, value in model.denoiser.state_dict().items():
        assert torch.equal(value, state[key])
    name = "seqTransDecoder.stack.0.film1.block.1.weight"
    broken = [
        {k: v for k, v in state.items() if k != name},
        {("renamed" if k == name else k): v for k, v in state.items()},
        {**state, name: state[name].T.contiguous()},
        {**state, "audio_model.something_else": torch.zeros(1)},
    ]
    for wrong in broken:
        with pytest.raises(WeightsError):
            load_into(model, wrong)


def test_a_guide_with_other_audio_layers_names_the_key():
    model = tiny("A2PGuide")
    other = tiny("A2PGuide", **{"model_params.num_audio_layers": 2})
    with pytest.raises(WeightsError, match=r"num_audio_layers=2"):
        load_into(model, official(other.guide))


def test_the_layers_of_a_foreign_guide_are_told_by_its_names():
    from talkingface.model.audio_driven_talkingface.a2p.a2p_guide import A2PGuide

    state = {f"pre_audio.{n}.weight": torch.zeros(1) for n in (0, 51, 54)}
    assert A2PGuide.settings_of(state) == {"model_params.num_audio_layers": 3}
    assert A2PGuide.settings_of({}) == {}


def test_parts_that_do_not_belong_together_are_refused_with_the_keys():
    over = {"weights.guide": None}
    cfg = load_config("A2P", "SyntheticDyad", preset="tiny", overrides=over)
    with pytest.raises(ConfigError, match=r"weights\.guide and weights\.vq"):
        cfg.schema.components(cfg)
    gt = load_config(
        "A2P", "SyntheticDyad", preset="tiny", overrides={**over, "sampling.guide_source": "gt"}
    )
    assert set(gt.schema.components(gt)) == {"face", "pose"}
    none = {"weights.face": None, "weights.pose": None}
    cfg = load_config("A2P", "SyntheticDyad", preset="tiny", overrides=none)
    with pytest.raises(ConfigError, match="nothing is left to generate"):
        cfg.schema.components(cfg)
    video = load_config("A2P", "Synthetic", preset="tiny")
    assert set(video.schema.components(video)) == {"face"}


def test_no_lips_means_no_lip_network():
    cfg = load_config("A2PFace", "PXB184", preset="tiny", overrides={"weights.lips": None})
    assert cfg.lip_cond == "none" and not cfg.schema.components(cfg)


def test_weights_without_units_say_what_is_missing():
    with pytest.raises(WeightsError, match=r"data_stats\.pth"):
        tiny("A2PFace").statistics.denormalize(np.zeros((1, 4, 256)))


def test_the_vector_of_a_pose_survives_the_codec():
    torch.manual_seed(0)
    codec = TemporalVertexCodec(6, 8, 16, 2).eval()
    codec.quantizer.start(torch.randn(100, 8))
    poses = torch.randn(2, 5, 6)
    codes = codec.encode(poses)
    assert codes.shape == (2, 5, 2) and codes.dtype == torch.int64
    torch.testing.assert_close(codec.decode(codes), codec(poses)[0], rtol=0, atol=1e-5)
    # Causal: a later pose changes no earlier code.
    poses[:, 3:] += 1
    assert torch.equal(codec.encode(poses)[:, :3], codes[:, :3])


def test_a_codec_selects_by_reconstruction():
    model = tiny("A2PGuideVQ")
    model.codec.quantizer.start(torch.randn(100, 16))
    batch = {"keyframes": torch.randn(2, 6, 104), "key_valid": torch.ones(2, 6)}
    losses = losses_of(model.eval(), batch)
    assert losses["loss"] is losses["reconstruction"] and "perplexity" in losses


def test_front_end_weights_of_another_compression_are_refused(tmp_path):
    path = tmp_path / "vq.pt"
    model = tiny("A2PPose", **{"audio.frontend": "vqwav2vec", "audio.weights": "random"})
    model.initialize(None)  # random: nothing is read
    front = model.denoiser.audio_model
    content = {"model": {k: torch.zeros_like(v) for k, v in front.state_dict().items()}}
    torch.save(content | {"args": Namespace(log_compression=True)}, path)
    model = tiny("A2PPose", **{"audio.frontend": "vqwav2vec", "audio.weights": str(path)})
    with pytest.raises(WeightsError, match=r"audio\.log_compression=true"):
        model.initialize(None)
    front = model.denoiser.audio_model
    assert float(front.feature_extractor.conv_layers[0][0].weight.abs().max()) == 0


def test_a_front_end_without_weights_is_found_before_anything_slow():
    from talkingface.model.audio_driven_talkingface.a2p.a2p_config import A2PPoseConfig

    cfg = load_config("A2PPose", "SyntheticDyad", preset="paper")
    (text,) = A2PPoseConfig.missing(cfg)
    assert "vq-wav2vec.pt" in text and "logmel" in text


def test_frame_rates_without_whole_samples_are_refused():
    with pytest.raises(ConfigError, match="29.97 frames per second give no whole number"):
        load_config("A2PFace", "SyntheticDyad", overrides={"fps": 29.97})


@pytest.mark.parametrize("crf", [10, 40])
def test_videos_have_the_quality_of_the_key(crf, tmp_path, monkeypatch):
    from talkingface.data.dataprocess.a2p.files import Stats
    from talkingface.data.media import writer
    from talkingface.pipeline.a2p.a2p import A2PPipeline

    used, inner = [], writer.VideoWriter

    def watched(path, *args, **options):
        used.append((path.name, options["crf"]))
        return inner(path, *args, **options)

    monkeypatch.setattr(writer, "VideoWriter", watched)
    model, face = tiny("A2P", **{"infer.crf": crf, "infer.view": "lips"}), tiny("A2PFace")
    one = np.ones(256, np.float32)
    face.statistics.stats = Stats(one, one, np.zeros(2, np.float32), one[:1])
    model.components["face"] = Component(face)
    pipeline = A2PPipeline(model.cfg, model, torch.device("cpu"))
    done = pipeline.render(None, speech(40)[::3, 0], tmp_path / "made.mp4", seed=1)
    assert done.frames == 40 and used == [("made_face.mp4", crf), ("made.mp4", crf)]


def losses_of(model, batch, phase="main"):
    return model.calculate_loss(batch, phase, model.forward_train(batch))
