"""Training items of HyperLips stage 1 (hyperlips spec, 7 and 9.1) against hand-made windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from trainkit import hyperlips_config

from talkingface.config.config import load_config
from talkingface.data.dataprocess.face_crops import FaceCropProcess
from talkingface.data.dataset.base import build_loader
from talkingface.data.dataset.hyperlips.hyperlipsbase_dataset import (
    HyperLipsBaseDataset,
    SyncExpertDataset,
    valid_starts,
)
from talkingface.data.face.align import CROP_POINTS
from talkingface.data.media.images import read_image
from talkingface.data.media.writer import write_image
from talkingface.errors import DataError, StageError

FRAMES, COLUMNS = 40, 129  # 40 frames at 25/s are 1.6 s: 1 + 1.6 * 80 columns


def make_clip(root: Path, name: str, frames: int = FRAMES, missing: tuple[int, ...] = ()) -> None:
    """A prepared clip whose frame i is grey 5 i (upper half + 3) and whose mel column c holds c."""
    folder = root / "preprocessed_data" / "imgs" / name
    for index in range(frames):
        if index not in missing:
            image = np.full((64, 64, 3), 5 * index, np.uint8)
            image[:32] += 3
            write_image(folder / f"{index}.png", image)
            (folder / f"{index}.png").rename(folder / f"{index}.jpg")  # lossless, read by content
    columns = 1 + frames * 80 // 25
    np.save(folder / "mel.npy", np.tile(np.arange(columns, dtype=np.float32), (80, 1)))
    found = np.array([i not in missing for i in range(frames)])
    boxes, segments = np.zeros((frames, 4), np.float32), np.zeros(frames, np.int32)
    sizes = np.full((frames, 2), 64)
    np.savez(folder / "face.npz", boxes=boxes, found=found, segments=segments, sizes=sizes)
    process = FaceCropProcess(hyperlips_config(root=str(root)))
    path = process.prepared.marker_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    fingerprint = {"processor": process.prepared.settings_hash()}
    path.write_text(json.dumps({"status": "ok", "clip": name, "fingerprint": fingerprint}))


def make_root(root: Path, clips: dict[str, dict] | None = None) -> Path:
    clips = {"a": {}, "b": {}} if clips is None else clips
    for name, options in clips.items():
        make_clip(root, name, **options)
    for split in ("train", "val", "test"):
        path = root / "filelist" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in clips))
    return root


def dataset(root: Path, kind: type = HyperLipsBaseDataset, split: str = "train", **settings):
    if kind is SyncExpertDataset:
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        cfg = load_config(
            "SyncExpert", "Synthetic", preset="tiny", overrides={"root": str(root), **dotted}
        )
    else:
        given = {"data__windows_per_clip": 8, "data__align_reference": False, **settings}
        cfg = hyperlips_config(root=str(root), **given)
    return kind(cfg, split)


def frame_numbers(video: np.ndarray) -> list[int]:
    """Frame indices of a (3,T,S,S) video of :func:`make_clip`, read off the lower half."""
    levels = np.rint(video[0, :, -1, 0] * 255).astype(int)
    assert (levels % 5 == 0).all()
    return (levels // 5).tolist()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> HyperLipsBaseDataset:
    return dataset(make_root(tmp_path_factory.mktemp("prepared")))


def test_an_item_has_the_shapes_and_types_of_the_specification(data):
    item = data[0]
    shapes = {k: (v.shape, v.dtype) for k, v in item.items() if k != "clip_id"}
    assert shapes == {
        "input_frames": ((6, 5, 32, 32), np.float32),
        "indiv_mels": ((5, 1, 80, 16), np.float32),
        "mels": ((1, 80, 16), np.float32),
        "gt": ((3, 5, 32, 32), np.float32),
    }


def test_the_first_column_of_a_frame_is_16_fifths_of_its_index():
    """floor(80 n / 25): 0, 3, 6, 9, 12, 16, 19, ... computed by hand."""
    from talkingface.data.media.mel import window_start

    assert [window_start(n, 25) for n in range(11)] == [0, 3, 6, 9, 12, 16, 19, 22, 25, 28, 32]


def test_the_mels_of_frame_3_on_are_those_computed_by_hand(data):
    clip = data.clips[0]
    # Window of frames 3..7: their own mels are those of frames 2..6, the sync mel that of frame 3.
    mels = data.frame_mels(clip, 3)
    assert mels[:, 0, 0, 0].tolist() == [6, 9, 12, 16, 19]
    assert mels[2, 0, 40].tolist() == list(range(12, 28))
    assert data.mel_at(clip, 3)[0].tolist() == list(range(9, 25))


def test_in_every_item_pictures_and_mels_belong_together(data):
    for index in range(len(data)):
        item = data[index]
        first, *rest = frame_numbers(item["gt"])
        assert rest == [first + j for j in range(1, 5)]
        expected = [80 * (first + j - 1) // 25 for j in range(5)]
        assert item["indiv_mels"][:, 0, 0, 0].tolist() == expected
        assert item["mels"][0, 0, 0] == 80 * first // 25


def test_the_offset_of_the_frame_mels_can_be_set(tmp_path):
    data = dataset(make_root(tmp_path), data__mel_frame_offset=0)
    assert data.frame_mels(data.clips[0], 3)[:, 0, 0, 0].tolist() == [9, 12, 16, 19, 22]
    assert 0 in data.clips[0].starts  # only with the official -1 frame 0 has no mel


def test_the_lower_half_of_the_target_is_hidden_and_the_upper_one_is_not(data):
    item = data[0]
    masked = item["input_frames"][:3]
    assert (masked[:, :, 16:] == 0).all()
    assert np.array_equal(masked[:, :, :16], item["gt"][:, :, :16])
    assert (item["gt"][:, :, 16:] > 0).any()


def test_the_reference_never_overlaps_the_target(data):
    for epoch in range(10):
        for index in range(len(data)):
            item = data[epoch, index]
            target, reference = (frame_numbers(v) for v in (item["gt"], item["input_frames"][3:]))
            assert not set(target) & set(reference)


def test_references_may_be_the_frames_with_an_open_mouth(tmp_path):
    root = make_root(tmp_path)
    points = np.zeros((FRAMES, len(CROP_POINTS), 3), np.float32)
    for point, place in ((33, (10, 20)), (263, (50, 20)), (13, (30, 40)), (14, (30, 41))):
        points[:, CROP_POINTS.index(point), :2] = place
    points[20:28, CROP_POINTS.index(14), 1] += 10
    for name in "ab":
        np.save(root / "preprocessed_data" / "imgs" / name / "points.npy", points)
    data = dataset(root, data__reference="open", data__syncnet_T=1)
    drawn = {
        frame_numbers(data[epoch, k]["input_frames"][3:])[0]
        for epoch in range(20)
        for k in range(len(data))
    }
    assert len(drawn) > 6 and drawn <= set(range(20, 28))
    for epoch in range(5):
        item = data[epoch, 0]
        assert frame_numbers(item["gt"]) != frame_numbers(item["input_frames"][3:])


def test_targets_may_be_larger_than_the_inputs_and_changed_like_them(tmp_path):
    root = make_root(tmp_path)
    data = dataset(root, data__fine=2)
    item = data[0]
    assert item["fine_frames"].shape == (6, 5, 64, 64) and item["gt"].shape == (3, 5, 64, 64)
    assert np.array_equal(item["fine_frames"][:3, :, :32], item["gt"][:, :, :32])
    assert (item["fine_frames"][:3, :, 32:] == 0).all()
    changed = dataset(root, data__fine=2, data__augment=True)
    levels = {k: changed[0][k][:, :, 0, 0].mean(1) for k in ("gt", "input_frames")}
    assert np.ptp(levels["gt"]) > 0  # another factor for each colour
    np.testing.assert_allclose(levels["gt"], levels["input_frames"][:3], atol=1e-6)
    assert not np.array_equal(changed[0]["gt"], item["gt"])
    np.testing.assert_array_equal(changed[0]["gt"], changed[0]["gt"])
    still = dataset(root, split="val", data__fine=2, data__augment=True)
    np.testing.assert_array_equal(still[0]["gt"], dataset(root, split="val", data__fine=2)[0]["gt"])


def test_overlap_can_be_allowed_as_in_the_official_loader(tmp_path):
    data = dataset(make_root(tmp_path), data__allow_overlap=True)
    pairs = []
    for epoch in range(10):
        for index in range(len(data)):
            item = data[epoch, index]
            pairs.append([frame_numbers(v) for v in (item["gt"], item["input_frames"][3:])])
    assert any(set(target) & set(reference) for target, reference in pairs)
    assert all(target != reference for target, reference in pairs)


def test_a_short_clip_gives_only_windows_that_have_a_reference_without_overlap(tmp_path):
    # 16 frames have 52 mel columns. A window from s needs columns up to floor(3.2 (s + 3)) + 16, so
    # s is 1..8, of which 4 and 5 lie within five frames of all others.
    data = dataset(make_root(tmp_path, {"short": {"frames": 16}}))
    assert data.clips[0].starts.tolist() == [1, 2, 3, 6, 7, 8]


def test_pictures_are_bgr_between_0_and_1(tmp_path):
    root = make_root(tmp_path)
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    for path in (root / "preprocessed_data" / "imgs" / "a").glob("*.jpg"):
        write_image(path.with_suffix(".png"), red)
        path.with_suffix(".png").rename(path)
    item = dataset(root)[0]
    assert item["clip_id"] == "a"
    assert item["gt"].reshape(3, -1).max(axis=1).tolist() == [0, 0, 1]


# -- determinism -----------------------------------------------------------------------------------


def same(first: dict, second: dict) -> bool:
    return all(np.array_equal(first[key], second[key]) for key in first)


def test_an_item_depends_on_seed_epoch_and_index_alone(tmp_path):
    root = make_root(tmp_path)
    first, second = dataset(root), dataset(root)
    np.random.seed(1)
    one = [first[3, i] for i in range(len(first))]
    np.random.seed(2)
    two = [second[3, i] for i in reversed(range(len(second)))][::-1]
    assert all(same(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("change", ["epoch", "index", "seed", "split"])
def test_another_epoch_index_seed_or_split_draws_another_window(tmp_path, change):
    root = make_root(tmp_path)
    first = dataset(root)
    one = [frame_numbers(first[0, i]["gt"])[0] for i in range(8)]
    if change == "epoch":
        two = [frame_numbers(first[1, i]["gt"])[0] for i in range(8)]
    elif change == "index":
        two = [frame_numbers(first[0, i + 8]["gt"])[0] for i in range(8)]
    else:
        other = dataset(root, seed=7) if change == "seed" else dataset(root, split="val")
        two = [frame_numbers(other[0, i]["gt"])[0] for i in range(8)]
    assert one != two


def test_an_epoch_visits_every_clip_as_often_as_set(data):
    names = [data[i]["clip_id"] for i in range(len(data))]
    assert {name: names.count(name) for name in names} == {"a": 8, "b": 8}


def test_loader_workers_give_the_same_batches(data):
    batches = []
    for workers in (0, 2):
        cfg = hyperlips_config(root=str(data.cfg.dataset_root), num_workers=workers)
        loader = build_loader(data, cfg, train=True)
        loader.sampler.set_position(2)
        batches.append(list(loader))
    assert len(batches[0]) == len(batches[1]) == 8
    for one, two in zip(*batches, strict=True):
        assert all(torch.equal(one[k], two[k]) for k in ("gt", "input_frames", "indiv_mels"))


def test_a_loader_that_starts_inside_an_epoch_gives_its_rest(data):
    cfg = hyperlips_config(root=str(data.cfg.dataset_root))
    loader = build_loader(data, cfg, train=True)
    loader.sampler.set_position(1)
    whole = [batch["gt"] for batch in loader]
    loader.sampler.set_position(1, 5 * cfg.batch_size)
    rest = [batch["gt"] for batch in loader]
    assert len(rest) == len(whole) - 5
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True))


# -- the index -------------------------------------------------------------------------------------


def test_windows_start_only_where_all_pictures_and_mels_exist():
    # Frames 0..11 without 4. Windows of three: 1, 5, 6, ... (0 has no mel of frame -1).
    segments = np.array([0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0])
    starts = valid_starts(segments, columns=200, fps=25, length=3, offset=-1)
    assert starts.tolist() == [1, 5, 6, 7, 8, 9]


def test_no_window_crosses_a_scene_cut():
    segments = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    starts = valid_starts(segments, columns=200, fps=25, length=3, offset=0)
    assert starts.tolist() == [0, 1, 2, 5, 6, 7]


@pytest.mark.parametrize(("columns", "last"), [(48, 9), (47, 8), (44, 8), (43, 7), (41, 7)])
def test_the_last_window_is_the_last_whose_mels_fit(columns, last):
    """The window s..s+2 needs the mel of frame s+1: s = 7, 8, 9 end at columns 41, 44, 48."""
    starts = valid_starts(np.zeros(40, int), columns=columns, fps=25, length=3, offset=-1)
    assert starts.max() == last


def test_a_clip_with_missing_pictures_is_used_around_them(tmp_path):
    data = dataset(make_root(tmp_path, {"gappy": {"missing": (20,)}}))
    starts = set(data.clips[0].starts.tolist())
    assert not starts & set(range(16, 21))
    assert {15, 21} <= starts


def test_the_summary_counts_clips_windows_and_items(data):
    facts = data.summary()
    assert (facts["clips"], facts["unusable"], facts["items"]) == (2, 0, 16)
    # floor(3.2 (s + 3)) + 16 <= 129 columns: s is 1..32.
    assert facts["windows"] == 2 * 32


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "mel.npy").write_bytes(b"cut"), "damaged"),
        (lambda folder: (folder / "face.npz").unlink(), "damaged"),
    ],
)
def test_a_damaged_clip_is_left_out_and_named(tmp_path, damage, reason):
    root = make_root(tmp_path)
    damage(root / "preprocessed_data" / "imgs" / "a")
    data = dataset(root)
    assert [clip.id for clip in data.clips] == ["b"]
    assert reason in data.unusable["a"]


def test_an_empty_split_says_which_list_and_why(tmp_path):
    root = make_root(tmp_path, {"tiny": {"frames": 8}})
    (root / "filelist" / "train.txt").write_text("tiny\nnever_prepared\n")
    with pytest.raises(StageError) as error:
        dataset(root)
    text = str(error.value)
    assert error.value.exit_code == 3
    for part in ("train split", "train.txt", "2 clips", "not prepared", "fewer than two"):
        assert part in text


def test_a_vanished_picture_is_an_error_with_a_remedy(tmp_path):
    data = dataset(make_root(tmp_path))
    for path in (data.clips[0].folder).glob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match="missing or damaged. Delete the folder"):
        data.load_item(0, np.random.default_rng(0))


@pytest.mark.parametrize("damage", ["nan", "flipped", "missing"])
def test_a_clip_damaged_after_the_start_is_left_out_and_its_neighbours_stay(
    tmp_path, damage, caplog
):
    data = dataset(make_root(tmp_path))
    clip = data.clips[0]
    if damage == "nan":
        clip.mel[:] = np.nan
    for path in clip.folder.glob("*.jpg") if damage != "nan" else ():
        content = read_image(path)
        path.unlink()
        if damage == "flipped":
            write_image(path, content)
            changed = bytearray(path.read_bytes())
            changed[-20] ^= 1
            path.write_bytes(changed)
    items = [data[index] for index in range(len(data))]
    assert {item["clip_id"] for item in items} == {"b"} and len(items) == 16
    names = " ".join(data._replaced) + " ".join(data._replaced.values())
    assert ("NaN" if damage == "nan" else "damaged") in names
    assert str(clip.folder) in names or "a" in data._replaced
    assert f"left out: {next(iter(data._replaced.values()))}" in caplog.text
    again = dataset(make_root(tmp_path / "other"))
    assert np.array_equal(items[8]["gt"], again[8]["gt"])  # the neighbours are not changed


def test_a_split_of_damaged_clips_stops(tmp_path):
    data = dataset(make_root(tmp_path))
    for clip in data.clips:
        clip.mel[:] = np.nan
    with pytest.raises(StageError, match="in a row are damaged.*NaN"):
        data[0]


# -- the sync expert -------------------------------------------------------------------------------


def expert_frames(item: dict) -> list[int]:
    levels = np.rint(item["faces"][::3, -1, 0] * 255).astype(int)
    return (levels // 5).tolist()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[dict]:
    root = make_root(tmp_path_factory.mktemp("pairs"))
    data = dataset(root, SyncExpertDataset, data__windows_per_clip=100)
    return [data[i] for i in range(len(data))]


def test_expert_items_are_lower_halves_of_five_frames(pairs):
    item = pairs[0]
    assert item["faces"].shape == (15, 64, 128)
    assert item["mels"].shape == (1, 80, 16)
    first, *rest = expert_frames(item)
    assert rest == [first + j for j in range(1, 5)]
    assert np.ptp(item["faces"][0][1:]) == 0  # brighter pixels of the upper half would show


def test_half_of_the_pairs_are_true_and_fit(pairs):
    share = np.mean([item["label"] for item in pairs])
    assert 0.4 < share < 0.6
    for item in pairs:
        distance = abs(expert_frames(item)[0] * 80 // 25 - int(item["mels"][0, 0, 0]))
        assert distance == 0 if item["label"] == 1 else distance >= 16  # five frames or more
