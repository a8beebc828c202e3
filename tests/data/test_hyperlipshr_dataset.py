"""Stage 2 of HyperLips on real files: the folders of the preparation, items, and dubbing."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional
from trainkit import differences

from talkingface.components.models import build_model, config_of_checkpoint, load_model_weights
from talkingface.config.config import Config, load_config
from talkingface.data.clips import Clip, discover_clips, make_clip
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.dataprocess.hyperlips.hyperlipshr_process import PARTS, HyperLipsHRProcess
from talkingface.data.dataset.hyperlips.hyperlipshr_dataset import HyperLipsHRDataset
from talkingface.data.filelists import read_filelist
from talkingface.data.media.audio import load_audio
from talkingface.data.media.images import read_image
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import ConfigError, WeightsError
from talkingface.pipeline.build import (
    PipelineStore,
    build_dataset,
    build_pipeline,
    build_process,
)
from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline
from talkingface.pipeline.hyperlips.dubbing_hr import HyperLipsHRPipeline
from talkingface.utils.hashes import sha256_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tiny_synthetic: Path, tiny_base: Path, tmp_path_factory) -> Path:
    """Root of a dataset that is prepared for HyperLipsHR, with the clips of tiny_synthetic."""
    root = tmp_path_factory.mktemp("hr")
    report = prepare_clips(build_process(configured(root, tiny_synthetic, tiny_base)), workers=1)
    assert report.of("ok") and not report.of("failed")
    return root


def configured(root: Path, synthetic: Path, base: Path, **settings) -> Config:
    overrides = {
        "root": str(root),
        "data_root": str(synthetic / "dataset/Synthetic-tiny/data"),
        "weights.base": str(base),
        "device": "cpu",
        "num_workers": 0,
        "show_progress": False,
        "face.min_face_ratio": 0.1,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    return load_config("HyperLipsHR", "MEAD", preset="tiny", overrides=overrides)


@pytest.fixture
def with_(prepared, tiny_synthetic, tiny_base):
    """``with_(data__patch=48)``: the configuration with further settings."""
    return lambda **settings: configured(prepared, tiny_synthetic, tiny_base, **settings)


@pytest.fixture
def cfg(with_) -> Config:
    return with_(infer__silence="keep")  # the preparation reads the sound as it is


def clip_of(process: HyperLipsHRProcess, name: str) -> Clip:
    (clip,) = (c for c in discover_clips(process.cfg.data_dir, process.cfg.clips) if c.id == name)
    return clip


# -- preparation -----------------------------------------------------------------------------------


def test_the_folders_of_the_seed_hold_one_file_per_frame_and_part(cfg):
    folder = cfg.dataset_root / "preprocessed_data" / "HR_Train_Dateset"
    names = read_filelist(cfg.filelist("train"))
    assert names
    for name in names:
        numbers = [
            {p.stem for p in (folder / part / name).iterdir() if p.suffix in (".jpg", ".png")}
            for part in PARTS
        ]
        assert len(numbers[0]) >= 45 and all(found == numbers[0] for found in numbers)
        sizes = {part: read_image(next((folder / part / name).glob("7.*"))).shape for part in PARTS}
        assert sizes["GT_IMG"] == sizes["GT_MASK"] == sizes["GT_SKETCH"] == (128, 128, 3)
        assert sizes["HYPER_IMG"] == sizes["HYPER_SKETCH"] == (128, 128, 3)
        for part in ("GT_MASK", "GT_SKETCH", "HYPER_SKETCH"):
            picture = read_image(next((folder / part / name).glob("7.png")))
            assert set(np.unique(picture)) <= {0, 255}


def test_the_prepared_picture_is_the_one_that_generation_gives_the_decoder(cfg):
    """Training and inference see the same input: picture and sketch, bit by bit."""
    name = read_filelist(cfg.filelist("test"))[0]
    process = build_process(cfg)
    clip = clip_of(process, name).path
    seen = decoder_inputs(cfg, clip)
    for number in (0, 11, 30):
        for part, picture in zip(("HYPER_IMG", "HYPER_SKETCH"), seen[number], strict=True):
            stored = read_image(process.folder / part / name / f"{number}.png")[..., ::-1]
            assert np.array_equal(stored, picture)


def decoder_inputs(cfg: Config, video: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Picture and sketch, (128,128,3) each, that the decoder gets when a video is dubbed."""
    pipeline = hr_pipeline(cfg)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    sharpen = pipeline._sharpen

    def spy(faces: list[np.ndarray], lines: list[np.ndarray]) -> np.ndarray:
        seen.extend((face, np.repeat(line[..., None], 3, axis=-1))
                    for face, line in zip(faces, lines, strict=True))  # fmt: skip
        return sharpen(faces, lines)

    pipeline._sharpen = spy
    list(pipeline.faces(pipeline.prepare(video), load_audio(video, 16000)))
    return seen


def test_another_base_makes_the_prepared_files_stale(cfg, with_, tiny_base, tmp_path):
    process = build_process(cfg)
    assert process.settings()["base"] == sha256_of(tiny_base)
    content = torch.load(tiny_base, weights_only=True)
    content["global_step"] += 1
    torch.save(content, tmp_path / "other.ckpt")
    other = build_process(with_(weights__base=str(tmp_path / "other.ckpt")))
    assert other.prepared.settings_hash() != process.prepared.settings_hash()


@pytest.mark.parametrize(
    ("settings", "stale"),
    [
        ({"infer.reference": "self", "infer.mel_frame_offset": 3, "infer.batch_size": 2}, False),
        ({"data.sketch_smoothing": 0.0}, True),
        ({"data.sketch": "upstream"}, True),
        ({"model_params.image_size": 256}, True),
        ({"face.box_smoothing": 0.1}, True),
    ],
)
def test_what_changes_the_prepared_files_makes_them_stale(cfg, with_, settings, stale):
    other = with_(**settings)
    changed = (
        build_process(other).prepared.settings_hash() != build_process(cfg).prepared.settings_hash()
    )
    assert changed == stale
    # A run that would go on with other data is another run.
    assert (other.hash != cfg.hash) or not stale


def test_the_base_generates_for_the_preparation_as_it_does_by_default(with_, talking_clip):
    """Settings of the generation do not reach the training data."""
    plain, odd = (
        build_process(with_(**more)).base
        for more in ({}, {"infer.reference": "self", "infer.mel_frame_offset": 3})
    )
    assert odd.cfg.infer == plain.cfg.infer


@pytest.mark.parametrize(
    ("settings", "advice"),
    [({"fps": 30.0}, "--fps=25"), ({"face.box_margins": [0.1, 0.1, 0.1]}, "--face.box_margins=")],
)
def test_a_base_of_another_rate_or_framing_is_refused(with_, settings, advice):
    cfg = with_(**settings)
    with pytest.raises(ConfigError, match=advice):
        _ = build_process(cfg).base
    with pytest.raises(ConfigError, match=advice):
        build_pipeline(cfg, build_model(cfg).eval(), CPU)


def test_a_clip_with_gaps_and_a_cut_is_prepared_as_it_is_generated(cfg, talking_clip, tmp_path):
    frames = list(read_frames(talking_clip, fps=25))
    path = tmp_path / "data" / "gappy.mp4"
    path.parent.mkdir()
    grey = np.full_like(frames[0], 128)
    shown = [*frames[:20], *[grey] * 3, *frames[20:30], *[f[:, ::-1] for f in frames[30:45]]]
    with VideoWriter(path, 25, audio=(load_audio(talking_clip, 16000), 16000), crf=5) as writer:
        for frame in shown:
            writer.write(np.ascontiguousarray(frame))
    process = build_process(cfg)
    clip = process.open_clip(make_clip(path))
    assert not clip.track.found[20:23].any() and clip.track.found.sum() > 40
    out = tmp_path / "out"
    out.mkdir()
    process.prepare_clip(clip, out)
    seen = decoder_inputs(cfg, path)
    kept = np.load(out / "GT_IMG" / "segments.npy")
    assert (kept >= 0).sum() > 35 and (kept[20:23] < 0).all()
    for number in np.flatnonzero(kept >= 0):
        for part, picture in zip(("HYPER_IMG", "HYPER_SKETCH"), seen[number], strict=True):
            assert np.array_equal(read_image(out / part / f"{number}.png")[..., ::-1], picture)


# -- items -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [128, 256])
def test_items_are_whole_pictures_and_the_lips_lie_in_their_rectangle(cfg, with_, size):
    data = build_dataset(cfg, "test")
    data.cfg = with_(model_params__image_size=size)
    item = data.load_item(data.index[0], np.random.default_rng(0))
    frames = cfg.data.frames
    assert item["hyper_img"].shape == item["hyper_sketch"].shape == (3, frames, 128, 128)
    assert item["gt_img"].shape == (3, frames, size, size)
    top, bottom, left, right = item["coords"][0] / size
    assert 0.45 < top < bottom < 1 and 0.1 < left < right < 0.9


def test_squares_show_the_same_place_in_input_and_target_and_hold_the_lips(with_):
    cfg = with_(data__patch=48)
    whole, cut = build_dataset(cfg, "train"), build_dataset(cfg, "train")
    whole.patch = None
    places = set()
    for seed in range(8):
        full, part = (d.load_item(d.index[0], np.random.default_rng(seed)) for d in (whole, cut))
        assert part["hyper_img"].shape == (3, 1, 48, 48) == part["gt_img"].shape
        y, x = find(full["hyper_img"][:, 0], part["hyper_img"][:, 0])
        places.add((y, x))
        for key in ("hyper_sketch", "gt_img"):
            assert np.array_equal(full[key][..., y : y + 48, x : x + 48], part[key])
        moved = np.clip(full["coords"] - [y, y, x, x], 0, 48)
        assert np.array_equal(moved, part["coords"])
        top, bottom, left, right = part["coords"][0]
        assert bottom > top and right > left
    assert len(places) > 3
    assert build_dataset(cfg, "test").patch is None


def find(whole: np.ndarray, part: np.ndarray) -> tuple[int, int]:
    """Where a square (3,p,p) lies in a picture (3,H,W)."""
    side = part.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(whole, (side, side), axis=(1, 2))
    hits = np.argwhere((windows == part[:, None, None]).all(axis=(0, 3, 4)))
    assert len(hits) == 1
    return tuple(int(v) for v in hits[0])


# -- generation ------------------------------------------------------------------------------------


def hr_pipeline(cfg: Config) -> HyperLipsHRPipeline:
    torch.manual_seed(0)
    return build_pipeline(cfg, build_model(cfg).eval(), CPU)


@pytest.mark.parametrize("size", [128, 256, 512])
def test_the_decoder_gets_128_pixels_and_gives_its_own_size(with_, talking_clip, size):
    pipeline = hr_pipeline(with_(model_params__image_size=size))
    shapes = []
    pipeline.decoder.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape[-2:]))
    wave = load_audio(talking_clip, 16000)[:9600]
    faces = [face for *_, face in pipeline.faces(pipeline.prepare(talking_clip), wave)]
    assert {tuple(shape) for shape in shapes} == {(128, 128)}
    assert {face.shape for face in faces} == {(size, size, 3)}


def test_the_official_behaviour_feeds_the_decoder_at_its_output_size(with_, talking_clip):
    pipeline = hr_pipeline(with_(model_params__image_size=256, infer__legacy_input=True))
    wave = load_audio(talking_clip, 16000)[:4800]
    (first, *_) = [f for *_, f in pipeline.faces(pipeline.prepare(talking_clip), wave)]
    assert first.shape == (512, 512, 3)


def test_every_frame_is_there_and_pixels_outside_the_blend_keep_every_bit(cfg, talking_clip):
    pipeline = hr_pipeline(cfg)
    source = pipeline.prepare(talking_clip)
    wave = load_audio(talking_clip, 16000)
    made = list(pipeline.generate(source, wave))
    real = list(read_frames(talking_clip, fps=25))
    assert len(made) == pipeline.frame_count(source, wave)
    for number in (0, 20, 40):
        x0, y0, x1, y1 = source.track.boxes[number].round().astype(int)
        changed = (made[number] != real[number]).any(axis=-1)
        assert changed.any()
        around = (x1 - x0) // 4  # mask=lips bends cheeks and chin, down to what is below the chin
        changed[max(y0, 0) : y1 + around, max(x0 - around, 0) : x1 + around] = False
        assert not changed.any()


def test_the_first_stage_alone_is_a_row_of_the_table(cfg, talking_clip):
    pipeline = hr_pipeline(cfg)
    assert "first_stage" in pipeline.baselines
    wave = load_audio(talking_clip, 16000)[:9600]
    source = pipeline.prepare(talking_clip)
    alone = [f for *_, f in pipeline.faces(source, wave, baseline="first_stage")]
    sharp = [f for *_, f in pipeline.faces(source, wave)]
    assert len(alone) == len(sharp) and {f.shape for f in alone} == {(128, 128, 3)}
    assert not np.array_equal(alone[0], sharp[0])


def test_a_face_is_missed_in_no_picture_without_saying_so(cfg, prepared, caplog, monkeypatch):
    from talkingface.data.face import mesh

    monkeypatch.setattr(mesh.FaceMesher, "__call__", lambda self, rgb: np.zeros((0, 478, 3)))
    logging.getLogger("talkingface").propagate = True
    process = build_process(cfg)
    clip = process.open_clip(clip_of(process, read_filelist(cfg.filelist("test"))[0]))
    out = prepared / "missed"
    out.mkdir()
    with caplog.at_level(logging.WARNING, logger="talkingface"):
        process.prepare_clip(clip, out)
    assert "no face in" in caplog.text
    assert not any(read_image(p).any() for p in (out / "HYPER_SKETCH").glob("*.png"))


# -- which base ------------------------------------------------------------------------------------


def test_a_base_that_an_older_preset_trained_keeps_its_network(with_, tiny_base, tmp_path):
    content = torch.load(tiny_base, weights_only=True)
    settings = yaml.safe_load(content["config"])
    assert settings["preset"] == "tiny"
    del settings["model_params"]["warp"], settings["data"]["align_reference"]  # newer keys
    weights = {k: v for k, v in content["state_dict"].items() if "warped_reference" not in k}
    assert len(weights) == len(content["state_dict"]) - 4
    old = tmp_path / "old.ckpt"
    torch.save({**content, "config": yaml.safe_dump(settings), "state_dict": weights}, old)
    store = PipelineStore(with_(weights__base=str(old)))
    assert store.network("base").warped_reference is None
    pipeline = store.pipeline("base", silence="keep")
    assert not pipeline.training_data["align_reference"] and pipeline.cfg.infer.silence == "keep"


def test_stage_two_gets_faces_of_the_size_of_the_preparation(cfg):
    clip = next(iter(discover_clips(cfg.data_dir, cfg.clips)))
    prepared = build_process(cfg).base
    model = build_model(cfg).eval()
    generating = build_pipeline(cfg, model, CPU)
    sound = np.zeros(8000, np.float32)
    sources = (prepared.prepare(clip.path), generating.prepare(clip.path))
    wanted = [face for *_, face in prepared.faces(sources[0], sound)]
    found = [face for *_, face in DubbingPipeline.faces(generating, sources[1], sound)]
    assert prepared.face_size == generating.face_size == (128, 128)
    assert np.abs(np.subtract(found, wanted, dtype=int)).max() <= 1
    assert wanted[0].shape == (128, 128, 3)


def test_generation_uses_the_base_that_the_decoder_was_trained_with(
    with_, tiny_base, tmp_path, caplog
):
    model = build_model(with_(weights__base="auto")).eval()
    model.origin.lineage = {"base": {"path": str(tiny_base), "sha256": sha256_of(tiny_base)}}
    build_pipeline(model.cfg, model, CPU)
    expected = build_model(load_config(overrides=config_of_checkpoint(tiny_base)))
    load_model_weights(expected, tiny_base)
    assert (
        differences(expected.network.state_dict(), model.components["base"].network.state_dict())
        == []
    )

    logging.getLogger("talkingface").propagate = True
    model = build_model(model.cfg).eval()
    model.origin.lineage = {"base": {"path": str(tmp_path / "gone.ckpt"), "sha256": "0"}}
    with pytest.raises(Exception, match="needs weights"), caplog.at_level(logging.WARNING):
        build_pipeline(model.cfg, model, CPU)
    assert "gone or has changed" in caplog.text


def test_official_weights_generate_with_the_official_base_and_never_with_a_demo(
    with_, tiny_base, tmp_path, root
):
    cfg = with_(weights__base="auto")
    demo = root / "saved/HyperLipsBase/MEAD/demo/checkpoints/best.ckpt"
    demo.parent.mkdir(parents=True)
    demo.write_bytes(tiny_base.read_bytes())
    (demo.parents[1] / "summary.json").write_text("{}")
    model = build_model(cfg).eval()
    own = tmp_path / "own" / "weights.pth"
    own.parent.mkdir()
    torch.save(model.network.state_dict(), own)
    (own.parent / "weights.json").write_text("{}")
    load_model_weights(model, own)  # exported by a run of ours: what lies beside it says so
    assert not model.origin.official
    official = tmp_path / "hyperlipshr_mead_128.pth"
    torch.save({"state_dict": model.network.state_dict(), "global_step": 1}, official)
    load_model_weights(model, official)
    assert model.origin.official
    with pytest.raises(WeightsError, match="official file that belongs to these weights"):
        build_pipeline(cfg, model, CPU)


@pytest.mark.parametrize(
    ("setting", "foreign", "thick"),
    [("auto", False, False), ("auto", True, True), ("upstream", False, True),
     ("unified", True, False)],
)  # fmt: skip
def test_sketches_are_drawn_as_the_weights_saw_them(
    with_, talking_clip, monkeypatch, setting, foreign, thick
):
    from talkingface.pipeline.hyperlips import dubbing_hr

    seen = []

    class Maker(dubbing_hr.SketchMaker):
        def __init__(self, fps, smoothing, *, upstream):
            seen.append(upstream)
            super().__init__(fps, smoothing, upstream=upstream)

    monkeypatch.setattr(dubbing_hr, "SketchMaker", Maker)
    pipeline = hr_pipeline(with_(data__sketch=setting))
    pipeline.model.origin.official = foreign
    wave = load_audio(talking_clip, 16000)[:3200]
    next(pipeline.faces(pipeline.prepare(talking_clip), wave))
    assert seen == [thick]


@pytest.mark.slow
def test_the_decoder_learns_to_sharpen_frames_that_it_has_not_seen(cfg, with_):
    """From pictures of half the detail, with the model's own loss and items; 15 seconds."""
    cfg = with_(loss__disc_wt=0.0, model_params__norm="none", model_params__channels=24,
                data__patch=64)  # fmt: skip
    torch.manual_seed(0)
    model, rng = build_model(cfg), np.random.default_rng(0)

    def batch(data: HyperLipsHRDataset, count: int) -> dict[str, torch.Tensor]:
        items = [data.load_item(data.index[i % len(data.index)], rng) for i in range(count)]
        items = [{k: v for k, v in item.items() if k != "clip_id"} for item in items]
        made = torch.utils.data.default_collate(items)
        small = functional.avg_pool3d(made["gt_img"], (1, 2, 2))
        size = (1, *made["gt_img"].shape[-2:])
        made["hyper_img"] = functional.interpolate(small, size=size, mode="trilinear")
        return made

    train, held_out = build_dataset(cfg, "train"), build_dataset(cfg, "train")
    train.index = [replace(e, starts=e.starts[e.starts < 30]) for e in train.index]
    held_out.index = [replace(e, starts=e.starts[e.starts > 35]) for e in held_out.index]
    held_out.patch = None
    optimizer = torch.optim.Adam(model.generator.parameters(), lr=1e-3)
    model.train()
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / 500)
        loss = losses_of(model, batch(train, 4), "generator")["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    whole = batch(held_out, 8)
    made, real, blurred = (
        model.eval().forward_train(whole)["generated"],
        whole["gt_img"],
        whole["hyper_img"],
    )

    def lower(pictures: torch.Tensor) -> torch.Tensor:  # what dubbing pastes
        return pictures[..., 64:, :]

    def detail(pictures: torch.Tensor) -> float:
        return float(lower(pictures).diff(dim=-1).abs().mean())

    errors = [float((lower(x) - lower(real)).abs().mean()) for x in (made, blurred)]
    details = [detail(x) for x in (blurred, made, real)]
    assert errors[0] < 0.95 * errors[1], (errors, details)
    assert details[0] < details[1] < 1.05 * details[2], (errors, details)


def losses_of(model, batch, phase="main"):
    return model.calculate_loss(batch, phase, model.forward_train(batch))
