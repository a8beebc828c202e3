"""HeadGAN's parts: face model, cameras, voice, losses, schedules, edits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from talkingface.config.config import load_config
from talkingface.data.dataprocess.headgan import characters, lowlevel
from talkingface.data.dataprocess.headgan.camera import adapted, reference_frames, turned
from talkingface.data.dataprocess.headgan.characters import SoundClasses, held, to_27
from talkingface.data.dataprocess.headgan.edits import direction, expression_offset
from talkingface.data.dataprocess.headgan.licensed import read_licensed
from talkingface.data.dataprocess.headgan.voice import Voice, voice_size
from talkingface.data.dataset.headgan.headgan_dataset import sequence_length
from talkingface.data.face.face_model import FaceModel, Geometry, learn_face_model
from talkingface.data.face.topology import CHIN, FOREHEAD, NOSE_TIP, triangles
from talkingface.data.npz import read_npz, save_npz
from talkingface.errors import ConfigError, DataError, WeightsError
from talkingface.model.component import Component
from talkingface.model.image_driven_talkingface.headgan.headgan import HeadGAN, mouth_crop
from talkingface.model.image_driven_talkingface.headgan.headgan_config import VoiceSection
from talkingface.trainer.optim import Schedule

V = 468
# Base features of the sound, in order.
BASE_NAMES = (
    "zcr", "energy", "energy_entropy", "spectral_centroid", "spectral_spread", "spectral_entropy",
    "spectral_flux", "spectral_rolloff", *(f"mfcc_{n + 1}" for n in range(13)),
)  # fmt: skip


def angles(rotation: np.ndarray) -> np.ndarray:
    """(T,3) yaw, pitch and roll in degrees of (T,3,3); the inverse of ``turned``."""
    return Rotation.from_matrix(rotation).as_euler("YXZ", degrees=True) * (1, 1, -1)


def face() -> np.ndarray:
    """(468,3) something like a face: a smooth surface through the points of the pose template."""
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import spsolve

    from talkingface.data.face.topology import pose_template

    numbers, template = pose_template()
    known = np.zeros((V, 3))
    known[numbers] = template * (1, 1, -1)  # z away from the viewer
    pairs = np.concatenate([triangles()[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    edges = csr_matrix((np.ones(len(pairs)), tuple(pairs.T)), shape=(V, V))
    laplace = diags(np.asarray(edges.sum(axis=1)).ravel()) - edges
    held = csr_matrix((np.full(len(numbers), 1e4), (numbers, numbers)), shape=(V, V))
    return spsolve((laplace + held).tocsc(), held @ known)


@pytest.fixture(scope="module")
def mesh() -> np.ndarray:
    return face()


def moving(mesh: np.ndarray, seed: int, count: int = 60, size: float = 60.0) -> np.ndarray:
    """(T,468,3) px: a face with three kinds of movement, turned by up to 20 degrees."""
    rng = np.random.default_rng(seed)
    modes = np.random.default_rng(5).normal(0, 1, (3, V, 3)) * 0.01
    modes[0, CHIN] += (0, 0.1, 0)
    weights = rng.normal(0, 1, (count, 3))
    shapes = mesh + rng.normal(0, 0.02, (V, 3)) + np.einsum("tk,kvc->tvc", weights, modes)
    turns = Rotation.from_euler("yxz", rng.uniform(-20, 20, (count, 3)), degrees=True).as_matrix()
    place = rng.normal(0, 5, (count, 1, 3)) + (128, 128, 0)
    return size * shapes @ turns.transpose(0, 2, 1) + place


@pytest.fixture(scope="module")
def model(mesh) -> FaceModel:
    clips = {f"c{k}": moving(mesh, k) for k in range(4)}
    return learn_face_model(clips, {"c0": "a", "c1": "a", "c2": "b", "c3": "c"}, n_exp=6)


# -- face model ------------------------------------------------------------------------------------


def test_the_face_model_is_upright_of_radius_one_and_knows_how_many_people_it_saw(model):
    assert np.sqrt(np.square(model.mean).sum(1).mean()) == pytest.approx(1, abs=1e-3)
    down = model.mean[CHIN] - model.mean[FOREHEAD]
    assert down[1] > 0 and abs(down[0]) < 0.1
    assert model.n_id == 2 and model.n_exp == 6 and "3 people, 4 clips" in model.sources
    assert len(model.faces) == 880
    corners = model.mean[model.faces]
    a, b, c = corners[:, 0, :2], corners[:, 1, :2], corners[:, 2, :2]
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert area.sum() > 0
    basis = model.exp_basis
    assert np.allclose(basis.T @ basis, np.eye(6), atol=1e-4)


def test_colours_belong_to_vertices_and_none_is_black(model):
    assert model.pncc.min() == 0 and model.pncc.max() == 1
    assert model.pncc.sum(axis=1).min() > 0.01
    assert model.pncc[NOSE_TIP, 2] < 0.2
    forehead, nose, chin = model.pncc[[FOREHEAD, NOSE_TIP, CHIN], 1]
    assert forehead < 0.2 and chin > 0.8 and nose > 0.4


def errors_of(model: FaceModel, geometry: Geometry, points: np.ndarray) -> np.ndarray:
    """(T,) root-mean-square distance of fitted and given points (T,>=468,3) in x and y, pixels."""
    fitted = model.placed(geometry)[:, model.corresponding, :2]
    squares = np.square(fitted - points[:, model.vertices, :2]).sum(axis=-1)
    return np.sqrt(squares.mean(axis=1))


def test_a_fit_finds_the_pose_and_expression_that_a_face_was_made_with(model):
    rng = np.random.default_rng(3)
    count = 20
    expression = rng.normal(0, 0.8, (count, model.n_exp)) * model.exp_std
    neutral = model.mean + rng.normal(0, 0.01, model.mean.shape)
    degrees = rng.uniform(-25, 25, (count, 3))
    made = Geometry(
        rng.uniform(50, 80, count), turned(degrees), rng.normal(128, 9, (count, 3)),
        expression, neutral,
    )  # fmt: skip
    found = model.fit(model.placed(made), neutral)
    trace = np.einsum("tij,tij->t", found.rotation, made.rotation)
    assert np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))).max() < 0.5
    assert errors_of(model, found, model.placed(made)).max() < 0.1
    assert np.abs(found.scale / made.scale - 1).max() < 0.01
    assert np.abs(found.expression - expression).max() < 0.1 * model.exp_std.max()


def test_a_person_fits_better_with_its_own_face_than_with_the_mean(model, mesh):
    points = moving(mesh, 77)
    by_basis = model.neutral_of(points, "pca")
    own, mean, basis = (
        errors_of(model, model.fit(points, neutral), points).mean()
        for neutral in (model.neutral_of(points), model.mean, by_basis)
    )
    assert own < 0.5 * mean
    assert by_basis.shape == (V, 3) and basis < 3


def test_the_picture_moves_with_the_pose_and_keeps_its_colours(model):
    one = Geometry(np.array([60.0]), np.eye(3)[None], np.array([[128.0, 128, 0]]),
                   np.zeros((1, model.n_exp)), model.mean)  # fmt: skip
    straight = model.render(model.placed(one)[0], 128, 256)
    assert straight.shape == (128, 128, 3) and straight[0, 0].tolist() == [0, 0, 0]
    moved = one.shift + (20.0, 0, 0)
    right = model.render(model.placed(Geometry(one.scale, one.rotation, moved, one.expression,
                                               model.mean))[0], 128, 256)  # fmt: skip
    assert np.abs(right[:, 10:].astype(int) - straight[:, :-10]).max() <= 1


def test_a_stored_face_model_is_the_same_and_a_damaged_one_is_named(model, tmp_path):
    model.save(tmp_path / "f.npz")
    assert FaceModel.read(tmp_path / "f.npz").id == model.id
    (tmp_path / "f.npz").write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(DataError, match=r"f\.npz"):
        FaceModel.read(tmp_path / "f.npz")


def test_a_closed_mouth_has_more_triangles_than_an_open_one(mesh):
    clips, people = {"c": moving(mesh, 1)}, {"c": "a"}
    closed = learn_face_model(clips, people, close_mouth=True)
    assert len(closed.faces) == 880 + 18 and closed.n_id == 0
    assert len(learn_face_model(clips, people, close_eyes=False).faces) == 852


def test_no_training_face_is_an_error_that_says_so():
    with pytest.raises(DataError, match="no training clip"):
        learn_face_model({}, {})


def test_a_licensed_model_is_named_with_its_place_and_licence(tmp_path):
    with pytest.raises(DataError, match=r"BFM_model_front.*needs a licence from the model's owner"):
        read_licensed("bfm", tmp_path / "BFM_model_front.mat", None, 28)


def test_a_basel_face_model_is_turned_to_our_axes_and_fitted_from_68_points(tmp_path, mesh):
    from scipy.io import savemat

    from talkingface.data.face.topology import IBUG68

    rng = np.random.default_rng(0)
    up = mesh * (1, -1, -1) * 90.0  # their axes and millimetres
    content = {
        "meanshape": up.reshape(1, -1),
        "idBase": rng.normal(0, 1, (3 * V, 80)),
        "exBase": rng.normal(0, 1, (3 * V, 64)),
        "tri": triangles()[:, ::-1] + 1.0,
        "keypoints": np.array(IBUG68)[None] + 1.0,
    }
    savemat(tmp_path / "BFM_model_front.mat", content)
    model = read_licensed("bfm", tmp_path / "BFM_model_front.mat", None, 28)
    assert model.n_exp == 28 and model.n_id == 80 and model.topology == "bfm"
    assert np.corrcoef(model.mean[:, 1], mesh[:, 1])[0, 1] > 0.999
    assert (model.faces == triangles()).all()
    points = np.zeros((2, 478, 3))
    points[:, :V] = mesh * 60 + 128
    fitted = model.fit(points, model.neutral_of(points))
    assert errors_of(model, fitted, points).max() < 1.5
    savemat(tmp_path / "BFM_model_front.mat", {"nothing": 1})
    with pytest.raises(DataError, match="not have the layout"):
        read_licensed("bfm", tmp_path / "BFM_model_front.mat", None, 28)


# -- cameras ---------------------------------------------------------------------------------------


def camera(count: int, scale: float, place: float, seed: int = 0) -> Geometry:
    rng = np.random.default_rng(seed)
    turns = turned(rng.uniform(-10, 10, (count, 3)))
    shift = place + rng.normal(0, 2, (count, 3))
    return Geometry(scale + rng.normal(0, 1, count), turns, shift, np.zeros((count, 2)),
                    np.zeros((4, 3)))  # fmt: skip


def test_an_adapted_camera_has_the_size_and_place_of_the_reference_and_the_drivers_turns():
    driver, reference = camera(60, 80, 140), camera(1, 50, 120, seed=1)
    made = adapted(driver, reference)
    assert made.scale.mean() == pytest.approx(reference.scale.mean(), rel=0.01)
    place = (made.shift / made.scale[:, None]).mean(axis=0)
    assert np.allclose(place, reference.shift[0] / reference.scale[0], atol=0.02)
    assert (made.rotation == driver.rotation).all()
    assert np.diff(made.scale).std() < 0.3 * np.diff(driver.scale).std()  # box-filtered


def test_without_translation_the_driver_keeps_its_place_in_units_of_the_head():
    driver, reference = camera(20, 80, 140), camera(1, 40, 100, seed=1)
    made = adapted(driver, reference, translation=False)
    assert np.allclose(made.shift / made.scale[:, None], driver.shift / driver.scale[:, None])


def test_one_reference_picture_with_std_makes_the_head_stand_still():
    made = adapted(camera(20, 80, 140), camera(1, 40, 100, seed=1), std=True)
    place = made.shift / made.scale[:, None]
    assert place.std(axis=0).max() < 1e-9


def test_short_clips_have_shorter_windows():
    assert len(adapted(camera(3, 80, 140), camera(1, 40, 100))) == 3


def test_angles_turn_back_and_have_the_signs_of_head_pose(mesh):
    from talkingface.data.face.pose import head_pose

    degrees = np.array([[12.0, -7.0, 4.0], [0, 0, 0], [-20, 5, -9]])
    assert np.allclose(angles(turned(degrees)), degrees)
    points = np.zeros((3, 478, 3))
    points[:, :V] = 60 * mesh @ turned(degrees).transpose(0, 2, 1) + 128
    points[:, V:] = points[:, :1]
    pose = head_pose(points, sigma=0)
    pose -= pose[1]
    assert (np.sign(pose[[0, 2], :3]) == np.sign(degrees[[0, 2]])).all()


def test_reference_frames_span_the_poses():
    many = camera(100, 80, 140)
    one = many.part(np.argsort(angles(many.rotation)[:, 0]))
    frames = reference_frames(one, 8)
    assert len(set(frames.tolist())) == 8


# -- voice -----------------------------------------------------------------------------------------


def test_the_features_of_a_440_hz_tone():
    time = np.arange(3 * 16000) / 16000
    rows = lowlevel.lowlevel_features(0.5 * np.sin(2 * np.pi * 440 * time), 16000, 25)
    assert rows.shape == (75, 84)
    names = [*BASE_NAMES, *(f"delta_{name}" for name in BASE_NAMES)]
    names = [f"{name}_{kind}" for kind in ("mean", "std") for name in names]
    row = dict(zip(names, rows[20].tolist(), strict=True))
    assert names[0] == "zcr_mean" and names[21] == "delta_zcr_mean" and names[42] == "zcr_std"
    assert names[83] == "delta_mfcc_13_std"
    assert row["zcr_mean"] == pytest.approx(2 * 440 / 16000, abs=0.002)
    assert row["energy_mean"] == pytest.approx(0.5, abs=0.002)  # of a sine with peak 1
    assert row["energy_entropy_mean"] == pytest.approx(np.log2(10), abs=0.02)
    assert row["spectral_rolloff_mean"] == pytest.approx(9 / 160)  # the bin at 450 Hz
    assert row["spectral_flux_mean"] < 0.01 and abs(row["delta_energy_mean"]) < 1e-3


def test_silence_has_finite_features():
    for wave in (np.zeros(16000), np.zeros(3), np.concatenate([np.zeros(8000), np.ones(8000)])):
        assert np.isfinite(lowlevel.lowlevel_features(wave, 16000, 25)).all()


@pytest.mark.parametrize("rate", [44100, 22050, 16000])
def test_rows_begin_with_their_frame_after_a_minute(rate):
    """A click at frame 1500 stands in the rows that hear it: 1493 to 1500 and none later."""
    fps, frame = 25.0, 1500
    wave = np.zeros(int(62 * rate))
    at = round(frame * rate / fps) + int(0.012 * rate)
    wave[at : at + 20] = 1.0
    energy = lowlevel.lowlevel_features(wave, rate, fps)[:, 1]
    heard = np.flatnonzero(energy > 0.5 * energy.max())
    assert heard.min() in (frame - 7, frame - 6) and heard.max() == frame
    drifting = lowlevel.lowlevel_features(wave, rate, fps, legacy_hop=True)[:, 1]
    late = np.flatnonzero(drifting > 0.5 * drifting.max()).max()
    assert (late == frame) == (rate == 16000)


def test_the_size_of_the_voice_follows_from_the_keys():
    assert voice_size(VoiceSection()) == 300
    assert voice_size(VoiceSection(lowlevel=False, half_window=2)) == 108


def test_the_character_window_repeats_the_ends():
    voice = Voice(VoiceSection(), characters.NoCharacters())
    char = np.eye(27, dtype=np.float32)[:10]
    rows = voice.vectors(np.zeros((10, 84), np.float32), char)[:, 84:].reshape(10, 8, 27)
    assert rows[0].argmax(1).tolist() == [0, 0, 0, 0, 0, 1, 2, 3]
    assert rows[9].argmax(1).tolist() == [5, 6, 7, 8, 9, 9, 9, 9]
    late = Voice(VoiceSection(shift=5), characters.NoCharacters())
    moved = late.vectors(np.zeros((10, 84), np.float32), char)[:, 84:].reshape(10, 8, 27)
    assert moved[0].argmax(1).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_stored_features_of_another_size_are_named_with_both_numbers():
    voice = Voice(VoiceSection(), characters.NoCharacters())
    with pytest.raises(DataError, match=r"80 \+ 27.*84 \+ 27"):
        voice.vectors(np.zeros((5, 80)), np.zeros((5, 27)))


def test_sound_classes_are_shares_that_repeat_and_differ_between_sounds(tmp_path):
    rng = np.random.default_rng(0)
    time = np.arange(4 * 16000) / 16000
    hiss = rng.normal(0, 0.1, len(time))
    tones = np.sin(2 * np.pi * (150 + 50 * np.floor(time * 4)) * time) * 0.3
    classes = SoundClasses.learn([hiss + tones, tones, hiss], seed=1)
    found = classes(tones, 25, 100)
    assert found.shape == (100, 27) and np.allclose(found.sum(1), 1, atol=1e-5)
    assert np.abs(found - classes(hiss, 25, 100)).sum(1).mean() > 1
    save_npz(tmp_path / "c.npz", classes.content())
    again = SoundClasses(**read_npz(tmp_path / "c.npz"))
    assert again.id == classes.id and np.array_equal(again(tones, 25, 100), found)
    assert SoundClasses.learn([hiss + tones, tones, hiss], seed=1).id == classes.id
    with pytest.raises(DataError, match="too little"):
        SoundClasses.learn([hiss[:4000]])


def test_letters_are_sorted_and_the_rest_is_one_class():
    one = np.zeros((3, 29))
    one[0, 3] = one[1, 0] = one[2, 1] = 1  # T, blank, word border
    assert to_27(one).argmax(1).tolist() == [ord("t") - ord("a"), 26, 26]
    # 50 steps per second: a letter lasts until the next character, the border of words, begins.
    rows = held(one[[0, 1, 1, 1, 2, 1]], 50, 25, 3)
    assert rows.argmax(1).tolist() == [19, 19, 26]


def test_a_missing_character_network_names_the_way_out(tmp_path):
    with pytest.raises(WeightsError, match="kmeans27 needs no file"):
        characters.CTCCharacters(tmp_path / "none.pth")


def test_a_character_network_hears_at_every_frame(tmp_path):
    torchaudio = pytest.importorskip("torchaudio")
    torch.manual_seed(0)
    network = torchaudio.models.wav2vec2_base(aux_num_out=29)
    path = tmp_path / characters.CTC_FILE
    # As it is published: three unused outputs more, and old names of the weight norm.
    state = {}
    for key, value in network.state_dict().items():
        if key.startswith("aux."):
            value = torch.cat([value[:1], torch.full((3, *value.shape[1:]), 1e3), value[1:]])
        key = key.replace("parametrizations.weight.original0", "weight_g")
        state[key.replace("parametrizations.weight.original1", "weight_v")] = value
    torch.save(state, path)
    wave = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    soft = characters.CTCCharacters(path)(wave, 25, 25)
    assert soft.shape == (25, 27) and np.allclose(soft.sum(1), 1, atol=1e-4)
    hard = characters.CTCCharacters(path, hold=True)(wave, 25, 25)
    assert set(np.unique(hard)) <= {0.0, 1.0} and (hard.sum(1) == 1).all()


# -- schedules -------------------------------------------------------------------------------------


def test_sequences_grow_as_in_the_official_code():
    assert [sequence_length(e, 6, 3, 48) for e in range(7)] == [6, 6, 12, 24, 48, 48, 48]


@pytest.mark.parametrize(
    ("zero", "falling"),
    [(True, [0.75, 0.5, 0.25, 0.0]), (False, [0.8, 0.6, 0.4, 0.2])],
)
def test_the_learning_rate_stays_six_epochs_and_falls_in_four(zero, falling):
    cfg = load_config("HeadGAN", "Synthetic", overrides={"optim.zero_last": zero})
    schedule = Schedule(cfg, 1000, 100)
    assert [schedule.factor(0, e) for e in range(10)] == pytest.approx([1.0] * 6 + falling)


# -- networks and losses ---------------------------------------------------------------------------


def small(**keys) -> HeadGAN:
    overrides = {f"model_params.{k}": v for k, v in keys.items()}
    cfg = load_config("HeadGAN", "Synthetic", preset="tiny", overrides=overrides)
    torch.manual_seed(0)
    return HeadGAN(cfg)


@pytest.mark.parametrize(("side", "halvings"), [(32, 1), (8, 3)])
def test_pictures_are_halved_down_to_the_coarsest_feature_maps(side, halvings):
    network = small(crop_size=64, down_size=side).generator
    assert len(network.flow_network.enc) == halvings + 1


def batch(size: int = 64, count: int = 2, value: float = 0.5) -> dict[str, torch.Tensor]:
    return {
        "pncc": torch.rand(count, 9, size, size),
        "ref_pncc": torch.rand(count, 3, size, size),
        "ref_image": torch.rand(count, 3, size, size) * 2 - 1,
        "audio": torch.randn(count, 300),
        "mask_union": torch.ones(count, 1, size, size),
        "mouth_center": torch.full((count, 2), size // 2),
        "tgt_image": torch.full((count, 3, size, size), value),
    }


def test_the_weights_of_the_losses_are_those_of_the_paper():
    """Constant pictures: every term is known, and the total is their weighted sum."""
    model = small()
    items = batch()
    items["pncc"] = torch.zeros(2, 9, 64, 64)
    items["pncc"][:, 6:, :32] = 0.5  # half of the picture is face
    made = {
        "image": torch.full((2, 3, 64, 64), 0.1, requires_grad=True),
        "warped": torch.full((2, 3, 64, 64), 0.3),
        "mask": torch.full((2, 1, 64, 64), 0.75),
        "flow": torch.zeros(2, 2, 64, 64),
    }
    losses = {k: v.item() for k, v in model.calculate_loss(items, "generator", made).items()}
    assert losses["masked_l1_image"] == pytest.approx(0.4 / 2, rel=1e-5)  # mean over all pixels
    assert losses["masked_l1_warped"] == pytest.approx(0.2 / 2, rel=1e-5)
    assert losses["mask"] == pytest.approx(0.25)
    expected = (
        50 * (losses["masked_l1_image"] + losses["masked_l1_warped"])
        + 10 * (losses["l1_image"] + losses["l1_warped"])  # only without VGG19
        + 10 * losses["mask"]
        + losses["gan"] + losses["gan_mouth"]
        + 10 * (losses["feature_matching"] + losses["feature_matching_mouth"])
    )  # fmt: skip
    assert losses["loss"] == pytest.approx(expected, rel=1e-5)
    judged = model.calculate_loss(items, "discriminator", made)
    value = {k: v.item() for k, v in judged.items()}
    assert value["loss"] == pytest.approx(
        value["on_real"] + value["on_fake"]
        + 0.5 * (value["on_real_mouth"] + value["on_fake_mouth"]), rel=1e-5,
    )  # fmt: skip


def test_with_vgg_whole_pictures_have_no_l1_and_vgg_has_weight_10():
    class Flat(torch.nn.Module):
        features = torch.nn.Sequential(*[torch.nn.Identity() for _ in range(30)])

    model = small()
    model.components["vgg"] = Component(Flat())
    assert model.l1_weight == 0
    items, picture = batch(), torch.zeros(2, 3, 64, 64)
    made = {"image": picture, "warped": picture, "mask": torch.ones(2, 1, 64, 64)}
    losses = model.calculate_loss(items, "generator", made)
    # Five equal layers: 0.5 * (1/32 + 1/16 + 1/8 + 1/4 + 1).
    assert losses["vgg_image"].item() == pytest.approx(0.5 * 1.46875)


def test_hinge_and_feature_matching_by_hand():
    from talkingface.model.losses.adversarial import (
        feature_matching,
        hinge_generator,
        hinge_real_fake,
    )

    real = [[torch.ones(1, 2), torch.tensor([[2.0]])], [torch.ones(1, 2), torch.tensor([[0.5]])]]
    fake = [[torch.zeros(1, 2), torch.tensor([[-3.0]])], [torch.ones(1, 2), torch.tensor([[1.0]])]]
    on_real, on_fake = hinge_real_fake(real, fake)
    assert (on_real.item(), on_fake.item()) == (0.25, 1.0)
    assert hinge_generator(fake).item() == 1.0
    # One map per scale counts, 4 / 2 each, half per scale.
    assert feature_matching(fake, real, logits=False).item() == pytest.approx(1.0)


def test_the_mouth_is_cut_inside_the_picture():
    picture = torch.arange(64.0).view(1, 1, 1, 64).expand(2, 1, 64, 64)
    cut = mouth_crop(picture, torch.tensor([[2, 30], [63, 63]]), 16)
    assert cut.shape == (2, 1, 16, 16)
    assert cut[0, 0, 0, 0] == 0 and cut[1, 0, 0, -1] == 63


@torch.no_grad()
def test_frames_do_not_depend_on_their_batch_and_encoded_references_serve_all():
    net = small().eval().network
    items = batch(count=3)
    keys = ("pncc", "ref_pncc", "ref_image", "audio")
    whole = net(*(items[k] for k in keys))
    one = net(*(items[k][1:2] for k in keys))
    assert torch.allclose(whole.image[1:2], one.image, atol=1e-5)
    same = [items[k][:1] for k in ("ref_pncc", "ref_image")]
    encoded = net.encode_reference(*same)
    many = net(items["pncc"], *same, items["audio"], encoded)
    single = net(items["pncc"][2:], *same, items["audio"][2:])
    assert torch.allclose(many.image[2:], single.image, atol=1e-5)


def test_a_fresh_generator_hardly_moves_the_reference():
    with torch.no_grad():
        made = small().forward_train(batch())
    assert made["flow"].abs().mean() < 0.5
    assert made["mask"].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("keys", [{"use_audio": False}, {"use_flow": False},
                                  {"pixelshuffle": False}, {"adain_residual": True}])  # fmt: skip
def test_every_variant_trains(keys):
    model = small(**keys)
    for phase in model.phases:
        losses_of(model, batch(), phase)["loss"].backward()
    without = [k for k, p in model.generator.named_parameters() if p.grad is None]
    assert without == []


def test_a_file_of_another_variant_says_which(tmp_path):
    import talkingface
    from talkingface.errors import WeightsError

    torch.save(small(use_audio=False).network.state_dict(), tmp_path / "latest_net_G.pth")
    with pytest.raises(WeightsError, match="use_audio=false"):
        talkingface.load_weights(small(), tmp_path / "latest_net_G.pth")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"model_params.crop_size": 96, "model_params.down_size": 32}, "must be 2, 4, 8"),
        ({"data.chunk": 2}, "shorter than"),
        ({"model_params.crop_size": 512}, "prep.size=512"),
        ({"audio.char_encoder": "deepspeech_file"}, "char_folder"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(keys, text):
    with pytest.raises(ConfigError, match=text):
        load_config("HeadGAN", "Synthetic", overrides=keys)


# -- edits -----------------------------------------------------------------------------------------


def test_named_expressions_move_what_they_say(model):
    from talkingface.data.face.topology import INNER_LIP_BOTTOM, INNER_LIP_TOP

    opened = model.shape(model.mean, direction(model, "jaw_open")[None])[0] - model.mean
    assert opened[INNER_LIP_BOTTOM, 1] > opened[INNER_LIP_TOP, 1]
    assert np.linalg.norm(direction(model, "smile") / model.exp_std) == pytest.approx(1)
    both = expression_offset(model, {"jaw_open": 2.0, "1": -1.0})
    plain = 2 * direction(model, "jaw_open")
    plain[1] -= model.exp_std[1]
    assert np.allclose(both, plain)
    for wrong in ({"grin": 1.0}, {"6": 1.0}, {}):
        with pytest.raises(ConfigError, match="expression"):
            expression_offset(model, wrong)


def test_epochs_that_grow_count_their_steps_and_resume_inside():
    from torch.utils.data import DataLoader

    from talkingface.data.dataset.base import ResumableSampler
    from talkingface.trainer.trainer import epoch_batches

    sampler = ResumableSampler(lambda epoch: 4 * 2**epoch, seed=1, shuffle=True)
    loader = DataLoader(range(64), batch_size=4, sampler=sampler, drop_last=True)
    sampler.set_position(1, 4)
    assert epoch_batches(loader, 4) == [1, 2, 4, 8]
    assert (sampler.epoch, sampler.start) == (1, 4)  # as it was
    rest = list(sampler)
    sampler.set_position(1)
    assert list(sampler)[4:] == rest and len(rest) == 4


def losses_of(model, batch, phase="main"):
    return model.calculate_loss(batch, phase, model.forward_train(batch))
