"""Dubbing: how many frames, which source frame each one is, and which pixels are touched."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from trainkit import hyperlips_config

from talkingface.components.models import build_model
from talkingface.data.face.align import open_frames
from talkingface.data.face.boxes import integer_box
from talkingface.data.face.masks import lower_half_weights
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.data.media.writer import VideoWriter, write_image
from talkingface.errors import ConfigError, DataError, EnvironmentProblem
from talkingface.evaluator.metrics.seam import border_gradients
from talkingface.pipeline import dubbing
from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline, paste_face

FRAMES = 14  # of the short source


def speech(seconds: float) -> np.ndarray:
    """Noise that swells and fades, as mono 16 kHz samples."""
    time = np.arange(round(seconds * 16000)) / 16000
    noise = np.random.default_rng(0).normal(0, 0.3, len(time))
    return (noise * np.sin(2 * np.pi * 2 * time) ** 2).astype(np.float32)


def wave_for(frames: int) -> np.ndarray:
    """The shortest sound that gives a number of frames by the chunk rule, found by the rule."""
    samples = 3200
    while chunk_rule(samples) < frames:
        samples += 200
    assert chunk_rule(samples) == frames
    return speech(samples / 16000)


def chunk_rule(samples: int, fps: float = 25.0) -> int:
    """Number of chunks as written in the specification (section 7), with a plain loop."""
    columns, count = 1 + samples // 200, 0
    while int(count * 80 / fps) + 16 <= columns:
        count += 1
    return count + 1


@pytest.fixture(scope="module")
def make() -> Callable[..., DubbingPipeline]:
    torch.manual_seed(0)
    weights = build_model(hyperlips_config()).state_dict()

    def pipeline(**settings) -> DubbingPipeline:
        cfg = hyperlips_config(**settings)
        model = build_model(cfg)
        model.load_state_dict(weights)
        return DubbingPipeline(cfg, model.eval(), torch.device("cpu"))

    return pipeline


@pytest.fixture(scope="module")
def source(talking_clip: Path, tmp_path_factory) -> Path:
    """The first 14 frames of a talking face; every frame differs from the others."""
    path = tmp_path_factory.mktemp("source") / "short.mp4"
    with VideoWriter(path, 25, crf=8) as writer:
        for index, frame in zip(range(FRAMES), read_frames(talking_clip), strict=False):
            marked = frame.copy()
            marked[:16, :16] = 15 * index  # tells frames apart even where the head is still
            writer.write(marked)
    return path


@pytest.fixture(scope="module")
def originals(source: Path) -> np.ndarray:
    return np.stack(list(read_frames(source, fps=25)))


# -- number of frames ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "frames"), [(5.33, 130), (7.38, 181), (9.01, 222), (6.08, 149), (8.92, 220)]
)
def test_the_frame_counts_are_those_of_the_published_results(make, source, seconds, frames):
    """Sound lengths and frame counts of hyperlips spec, section 16."""
    pipeline = make()
    assert pipeline.frame_count(pipeline.prepare(source), speech(seconds)) == frames


@pytest.mark.parametrize("samples", [100, 3000, 3200, 3201, 16000, 16199, 16200, 48017])
def test_the_number_of_frames_follows_the_chunk_rule(make, source, samples):
    pipeline = make()
    identity, wave = pipeline.prepare(source), speech(samples / 16000)
    # Sound of less than 16 columns is filled up to 16 (upstream breaks there): two chunks.
    expected = max(chunk_rule(len(wave)), 2)
    assert pipeline.frame_count(identity, wave) == expected
    assert len(list(pipeline.generate(identity, wave, baseline="copy_reference"))) == expected


# -- order of source frames ------------------------------------------------------------------------


def order_of(pipeline: DubbingPipeline, source: Path, originals: np.ndarray, wave) -> list[int]:
    """Source index of each output frame, with nothing painted over."""
    identity = pipeline.prepare(source)
    bare = dataclasses.replace(identity, strength=np.zeros_like(identity.strength))
    order = []
    for frame in pipeline.generate(bare, wave, baseline="copy_reference"):
        equal = [i for i, original in enumerate(originals) if np.array_equal(original, frame)]
        assert len(equal) == 1
        order += equal
    return order


UP, DOWN = list(range(FRAMES)), list(range(FRAMES - 1, -1, -1))


@pytest.mark.parametrize(
    ("when_short", "expected"),
    [
        ("pingpong", UP + DOWN + UP + DOWN[:3]),
        ("loop", UP + UP + UP + UP[:3]),
        ("truncate", UP),
    ],
)
@pytest.mark.parametrize("chunk", [64, 5, 1])
def test_a_sound_longer_than_the_video_plays_it(
    make, source, originals, monkeypatch, when_short, expected, chunk
):
    monkeypatch.setattr(dubbing, "BACKWARD_CHUNK", chunk)
    pipeline = make(infer__when_short=when_short, infer__batch_size=4)
    assert order_of(pipeline, source, originals, wave_for(3 * FRAMES + 3)) == expected


def test_a_sound_shorter_than_the_video_takes_its_first_frames(make, source, originals):
    assert order_of(make(), source, originals, wave_for(6)) == UP[:6]


# -- pixels ----------------------------------------------------------------------------------------


def lower_half(box: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice]:
    x0, y0, x1, y1 = integer_box(box, *shape[:2])
    return slice(y0 + (y1 - y0) // 2, y1), slice(x0, x1)


def test_only_the_lower_half_of_the_box_is_touched(make, source, originals):
    pipeline = make()
    identity = pipeline.prepare(source)
    frames = list(pipeline.generate(identity, wave_for(FRAMES)))
    assert len(frames) == FRAMES
    for index, (frame, original) in enumerate(zip(frames, originals, strict=True)):
        outside = np.ones(frame.shape[:2], bool)
        outside[lower_half(identity.track.boxes[index], frame.shape)] = False
        assert np.array_equal(frame[outside], original[outside])
        assert (frame[~outside] != original[~outside]).mean() > 0.3


def test_the_source_frames_are_not_written_into(make, originals, monkeypatch, tmp_path):
    image = tmp_path / "face.png"
    write_image(image, originals[0])
    pipeline = make()
    identity = pipeline.prepare(image)
    first = [f.copy() for f in pipeline.generate(identity, wave_for(4))]
    second = list(pipeline.generate(identity, wave_for(4)))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_still_image_speaks_for_the_whole_sound(make, originals, tmp_path):
    image = tmp_path / "face.png"
    write_image(image, originals[0])
    pipeline = make(infer__when_short="truncate")  # a picture is never too short
    identity = pipeline.prepare(image)
    frames = list(pipeline.generate(identity, speech(2.0)))
    assert len(frames) == chunk_rule(32000)
    outside = np.ones(frames[0].shape[:2], bool)
    outside[lower_half(identity.track.boxes[0], frames[0].shape)] = False
    assert all(np.array_equal(frame[outside], originals[0][outside]) for frame in frames)


def test_the_mouth_is_painted_with_the_generated_crop(make, source, originals):
    """copy_reference pastes the first frame's crop: in frame 0 that is what was there."""
    pipeline = make(model_params__image_size=128)
    identity = pipeline.prepare(source)
    frame = next(pipeline.generate(identity, wave_for(2), baseline="copy_reference"))
    assert np.abs(frame.astype(int) - originals[0]).max() < 60  # resampled, not replaced
    assert np.abs(frame.astype(int) - originals[0]).mean() < 1


@pytest.fixture(scope="module")
def gappy(talking_clip: Path, tmp_path_factory) -> Path:
    """A face that is away for frames 12..23 and blinks out for frames 32..34."""
    path = tmp_path_factory.mktemp("gappy") / "gappy.mp4"
    with VideoWriter(path, 25, crf=8) as writer:
        for index, frame in zip(range(44), read_frames(talking_clip), strict=False):
            away = 12 <= index < 24 or 32 <= index < 35
            writer.write(np.full_like(frame, 90) if away else frame)
    return path


def test_frames_without_a_face_stay_as_they_are(make, gappy):
    pipeline = make(face__min_face_ratio=0.0)
    identity = pipeline.prepare(gappy)
    originals = list(read_frames(gappy, fps=25))
    frames = list(pipeline.generate(identity, wave_for(44)))
    same = [np.array_equal(a, b) for a, b in zip(frames, originals, strict=True)]
    assert not identity.track.found[14:22].any()
    assert all(same[12:24])
    assert not any(same[:10]) and not any(same[26:])  # the short gap is painted


@pytest.mark.parametrize(
    ("found", "painted"),
    [
        ("1111111111", "1111111111"),
        ("1100000111", "1111111111"),  # five frames are 0.2 s
        ("1100000011", "1100000011"),
        ("0000111111", "1111111111"),
        ("1110000000", "1110000000"),
    ],
)
def test_gaps_up_to_a_fifth_of_a_second_are_closed(found, painted):
    shown = dubbing.in_view(np.array([c == "1" for c in found]), fps=25)
    assert "".join("01"[int(v)] for v in shown) == painted


def test_the_change_fades_beside_a_longer_gap_and_not_at_the_ends_of_the_video():
    weights = dubbing.fade_weights(np.array([True] * 8 + [False] * 6 + [True] * 8))
    np.testing.assert_allclose(weights[:8], [1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert (weights[8:14] == 0).all()
    np.testing.assert_allclose(weights[14:], weights[:8][::-1])


def test_far_turned_heads_stay_as_they_are(make, source, monkeypatch):
    yaw = np.zeros((FRAMES, 7))
    yaw[6:8, 0], yaw[8, 0], yaw[10, 0] = 60, -51, np.nan
    monkeypatch.setattr(dubbing, "head_pose", lambda *_, **__: yaw)
    strength = make().prepare(source).strength
    assert (strength[6:9] == 0).all()
    np.testing.assert_allclose(strength[[0, 3, 4, 5, 9, 10, 11, 12]],
                               [1, 0.75, 0.5, 0.25, 0.25, 0.5, 0.75, 1])  # fmt: skip


def test_the_mask_is_zero_at_its_edges_and_one_inside():
    mask = lower_half_weights(100, 80, border=0.1)
    assert mask.shape == (100, 80)
    assert (mask[:50] == 0).all()
    assert mask[[50, 99]].max() < 0.06 and mask[:, [0, 79]].max() < 0.07
    assert (mask[60:90, 8:72] == 1).all()
    assert np.array_equal(mask, mask[:, ::-1])
    assert (np.diff(mask[50:75, 40]) >= 0).all()


def test_a_mask_without_border_is_the_lower_half():
    mask = lower_half_weights(10, 6, border=0.0)
    assert (mask[5:] == 1).all() and (mask[:5] == 0).all()


def test_pasting_cuts_a_box_that_leaves_the_picture():
    frame = np.full((50, 60, 3), 10, np.uint8)
    face = np.full((32, 32, 3), 200, np.uint8)
    weights = lower_half_weights(30, 20, border=0.0)  # of what the picture holds of the box
    pasted = paste_face(frame, face, np.array([40.0, 20, 80, 70]), weights)
    assert (pasted[35:, 40:] == 200).all()
    assert (pasted[:35] == 10).all() and (pasted[:, :40] == 10).all()
    assert (frame == 10).all()


# -- what the network gets -------------------------------------------------------------------------


def test_the_batch_size_does_not_change_the_frames(make, source):
    videos = []
    for size in (1, 5):
        pipeline = make(infer__batch_size=size)
        videos.append(np.stack(list(pipeline.generate(pipeline.prepare(source), wave_for(11)))))
    assert np.abs(videos[0].astype(int) - videos[1]).max() <= 1


def test_every_frame_has_its_own_sound_code(make):
    pipeline = make()
    windows = pipeline._windows(speech(3.0), 25.0)  # more than one batch of the audio encoder
    codes = pipeline._codes(windows)
    for level in codes:
        assert len(level) == len(windows) == chunk_rule(48000)
    alone = pipeline._codes(windows[70:71])
    assert all(torch.allclose(a[70:71], b, atol=1e-5) for a, b in zip(codes, alone, strict=True))
    assert not torch.allclose(codes[0][70], codes[0][60])


def test_without_a_setting_the_mel_offset_is_that_of_the_training(make):
    wave = speech(1.0)
    trained = make(data__mel_frame_offset=-1)._windows(wave, 25.0)
    upstream = make(data__mel_frame_offset=-1, infer__mel_frame_offset=0)._windows(wave, 25.0)
    assert np.array_equal(trained[1:10], upstream[:9])
    assert not np.array_equal(trained[1:10], upstream[1:10])
    assert len(trained) == len(upstream)


def test_the_reference_is_the_first_face_or_the_one_asked_for(make, source, gappy):
    first = make().prepare(source).reference
    ninth = make(infer__reference="index", infer__reference_index=9).prepare(source).reference
    assert not np.array_equal(first, ninth)
    # Frame 18 of this clip has no face: the nearest one that has is taken.
    nearest = make(infer__reference="index", infer__reference_index=18, face__min_face_ratio=0.0)
    assert nearest.prepare(gappy).reference.std() > 10
    with pytest.raises(DataError, match="reference_index=99: the source has 14 frames"):
        make(infer__reference="index", infer__reference_index=99).prepare(source)


def test_an_open_reference_shows_one_of_the_widest_open_mouths(make, source):
    pipeline = make(infer__reference="open")
    identity = pipeline.prepare(source)
    widest = open_frames(identity.points, 0.1)
    assert identity.reference_index in widest and len(widest) < FRAMES
    # The baseline copies the first frame: an open mouth is a weak opponent.
    _, _, copied = next(iter(pipeline.faces(identity, wave_for(2), baseline="copy_reference")))
    np.testing.assert_array_equal(copied, make().prepare(source).reference)
    # auto follows the training.
    assert make()._reference_kind == "first"
    assert make(data__reference="open")._reference_kind == "open"


def test_without_mediapipe_the_lower_face_is_pasted_with_a_warning(
    make, source, monkeypatch, caplog
):
    def missing(**_):
        raise EnvironmentProblem("no mediapipe here")

    pipeline, plain = make(infer__mask="lips"), make()
    identity = plain.prepare(source)
    monkeypatch.setattr("talkingface.pipeline.hyperlips.dubbing.FaceMesher", missing)
    monkeypatch.setattr(logging.getLogger("talkingface"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="talkingface"):
        found = list(pipeline.generate(identity, wave_for(3)))
    assert "no mediapipe here; the whole lower face" in caplog.text
    np.testing.assert_array_equal(found, list(plain.generate(identity, wave_for(3))))


# -- files -----------------------------------------------------------------------------------------


def test_the_written_video_has_the_frames_the_rate_and_the_sound(make, source, tmp_path):
    done = make().render(source, speech(1.5), tmp_path / "new folder" / "out.mp4")
    info = probe(done.path)
    assert done.frames == count_frames(done.path, 25) == 38  # as long as the sound, 37.5
    assert (info.fps, info.width, info.height, info.has_audio) == (25, 256, 256, True)
    heard = load_audio(done.path, 16000)
    assert len(heard) / 16000 == pytest.approx(done.frames / 25, abs=0.07)
    middle = slice(4000, 16000)
    assert np.corrcoef(heard[middle], speech(1.5)[middle])[0, 1] > 0.9


@pytest.mark.parametrize("frames", [9, 25, 30])
def test_a_wanted_number_of_frames_is_kept_exactly(make, source, tmp_path, frames):
    """For comparisons with the real video: the chunk rule alone would give 22 for this sound."""
    done = make().render(source, speech(1.0), tmp_path / "out.mp4", frames=frames)
    assert done.frames == count_frames(done.path, 25) == frames


def test_a_source_at_50_frames_per_second_keeps_its_speed(make, talking_clip, tmp_path):
    path = tmp_path / "fast.mp4"
    with VideoWriter(path, 50, crf=8) as writer:
        for _, frame in zip(range(20), read_frames(talking_clip), strict=False):
            writer.write(frame)
            writer.write(frame)
    pipeline = make()
    assert len(pipeline.prepare(path).track) == 20


@pytest.mark.usefixtures("tracker")
def test_a_source_without_a_face_or_picture_is_refused(make, tmp_path, noise_video, tone_wav):
    with pytest.raises(DataError, match="no face found: noise.mp4"):
        make().prepare(noise_video(tmp_path / "noise.mp4", frames=5))
    with pytest.raises(DataError, match="has no video"):
        make().prepare(tone_wav)


def test_an_unknown_baseline_is_refused(make, source):
    pipeline = make()
    with pytest.raises(DataError, match="no baseline 'magic'"):
        list(pipeline.generate(pipeline.prepare(source), wave_for(2), baseline="magic"))


def test_a_long_work_shows_how_far_it_is_and_how_fast(make, source, tmp_path, capfd):
    import talkingface.data.face.scan as scan

    marker = tmp_path / "copy.mp4"
    marker.write_bytes(source.read_bytes() + b" ")  # other bytes: its faces are not cached
    make().render(marker, speech(6.0), tmp_path / "out.mp4", show_progress=True)
    shown = capfd.readouterr().err
    assert f"faces of {marker.name}" in shown and "out.mp4" in shown
    assert "s per second of video" in shown
    make().render(marker, speech(0.5), tmp_path / "out.mp4", show_progress=False)
    assert "out.mp4" not in capfd.readouterr().err
    assert scan.cache_folder().is_dir()


def test_the_blend_has_no_seam(make, source, originals):
    """The mask fades: neighbouring pixels of the difference never jump."""
    pipeline = make(infer__match_light=False)
    identity = pipeline.prepare(source)
    white = np.full((32, 32, 3), 255, np.uint8)
    black = np.zeros_like(originals[0])
    weights = pipeline._paste(identity, 3, black, white)[..., 0].astype(int)
    box = identity.track.boxes[3]
    steps = [np.abs(np.diff(weights, axis=axis)).max() for axis in (0, 1)]
    width = 0.06 * (box[3] - box[1])  # infer.blend
    assert max(steps) <= 1.5 * 255 / width + 2
    chin = identity.track.landmarks[3, 152, :2].round().astype(int)
    lips = identity.track.landmarks[3, 13, :2].round().astype(int)
    assert weights[lips[1], lips[0]] == 255 and weights[chin[1] - 2, chin[0]] > 100


def seam_of(pipeline: DubbingPipeline, source: Path, originals: np.ndarray) -> float:
    frames = pipeline.generate(pipeline.prepare(source), wave_for(FRAMES))
    found = [border_gradients(f, o, 4.0) for f, o in zip(frames, originals, strict=False)]
    generated, real = np.mean([pair for pair in found if pair is not None], axis=0)
    return generated / real


@pytest.mark.parametrize("mask", ["lips", "landmarks"])
@torch.no_grad()
def test_an_untrained_network_shows_no_box(make, source, originals, mask):
    """In the first steps of a training the mouth may be wrong, but it has no border."""
    assert seam_of(make(infer__mask=mask), source, originals) < 1.1
    # The grey picture of a network without warp, pasted with a hard border, is found.
    torch.manual_seed(0)
    cfg = hyperlips_config(
        model_params__warp=0, infer__mask="box", infer__blend=0.0, infer__match_light=False
    )
    hard = DubbingPipeline(cfg, build_model(cfg).eval(), torch.device("cpu"))
    assert seam_of(hard, source, originals) > 1.5


def test_the_light_of_the_frame_is_given_to_the_face(make, source, originals):
    """A copied face that is too dark is pasted with the light of its surroundings."""
    matched, plain = make(), make(infer__match_light=False)
    identity = plain.prepare(source)
    dark = (identity.reference[..., ::-1] * 0.8).astype(np.uint8)
    index = identity.reference_index
    errors = [
        np.abs(p._paste(identity, index, originals[index], dark).astype(int) - originals[index])
        for p in (matched, plain)
    ]
    assert errors[0].mean() < 0.3 * errors[1].mean()


def test_a_restoration_of_ones_own_and_sharpening_change_the_face_and_nothing_else(
    make, source, originals, tmp_path
):
    (tmp_path / "restorers.py").write_text(
        "class Brighter:\n"
        "    def __call__(self, face):\n"
        "        assert face.dtype == 'uint8' and face.shape[2] == 3 < len(face)\n"
        "        return (face // 2 + 128).astype('uint8')\n"
        "def plain(face):\n"
        "    import torch\n"
        "    return torch.from_numpy(face).numpy()\n"
        "def nothing(face):\n"
        "    pass\n"
    )
    folder = str(tmp_path)
    plain, same, bright, sharp = (
        # A picture with details; the untrained network paints none.
        list(
            make(infer__match_light=False, **settings).generate(
                make().prepare(source), wave_for(5), baseline="copy_reference"
            )
        )
        for settings in (
            {},
            {"infer__restore": "restorers:plain", "plugin_path": folder},
            {"infer__restore": "restorers:Brighter", "plugin_path": folder},
            {"infer__sharpen": 1.0},
        )
    )
    assert np.array_equal(plain, same)
    broken = make(infer__restore="restorers:nothing", plugin_path=folder)
    with pytest.raises(ConfigError, match="restorers:nothing must return an image"):
        list(broken.generate(broken.prepare(source), wave_for(5)))
    box = make().prepare(source).track.boxes[2]
    inside = lower_half(box, originals[0].shape[:2])
    for other in (bright, sharp):
        differs = (plain[2] != other[2]).any(axis=-1)
        assert differs[inside].any()
        differs[inside] = False
        assert not differs.any()
    assert bright[2].mean() > plain[2].mean()


@pytest.mark.usefixtures("tracker")
def test_one_of_two_people_is_chosen_by_a_word(make, shared, tmp_path):
    (clip,) = (shared / "hard_cases").glob("two_faces_split_screen.mp4")
    paths = {}
    for side in ("left", "right", "largest", 0):
        pipeline = make(face=side)
        box = pipeline.prepare(clip).track.boxes[0]
        paths[side] = (box[0] + box[2]) / 2
    assert paths["left"] == paths[0] < paths["right"]
    assert paths["largest"] in (paths["left"], paths["right"])
