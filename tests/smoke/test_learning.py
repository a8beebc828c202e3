"""Models learn what they are for (minutes; run with -m slow)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, run_command

from talkingface.data.dataprocess.engine import prepare_clips

pytestmark = pytest.mark.slow

FRAME = 640  # samples at 16 kHz


def test_a_small_syncnet_finds_every_offset_on_held_out_clips(tmp_path: Path):
    """Two minutes on one core: shifts of -10 to +10 frames, and true sounds beat others."""
    from talkingface.data.clips import make_clip
    from talkingface.data.face.boxes import face_boxes
    from talkingface.data.face.tracking import video_landmarks
    from talkingface.data.filelists import read_filelist
    from talkingface.data.media.audio import load_audio
    from talkingface.data.media.reader import read_frames
    from talkingface.evaluator.metrics.syncnet.sync_score import (
        crops,
        lip_features,
        load_syncnet,
        score,
        sound_features,
    )

    args = [
        "--model=SyncNet", "--dataset=Synthetic", "--preset=cpu", "--synthetic.persons=6",
        "--data.frames=25", "--data.windows_per_clip=8",
        "--model_params.width=0.25", "--loss.kind=matching", "--batch_size=4", "--max_steps=240",
        "--epochs=1000", "--eval_step=4", "--optim.scheduler=cosine", "--stopping_step=0",
    ]  # fmt: skip
    done = run_command(args, tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr
    network = load_syncnet(next(tmp_path.glob("saved/SyncNet/Synthetic/*/checkpoints/best.ckpt")))
    (data,) = tmp_path.glob("dataset/Synthetic*")
    clips = [make_clip(data / f"data/{n}.mp4") for n in read_filelist(data / "filelist/test.txt")]
    assert len(clips) >= 2
    right, wrong = [], []
    waves = [load_audio(clip.audio, 16000) for clip in clips]
    for number, clip in enumerate(clips):
        boxes = face_boxes(video_landmarks(clip.path, fps=25, tracking=False), fps=25)
        frames = crops(read_frames(clip.path, fps=25), boxes, network.image_size)
        lips = lip_features(network, frames)

        def judged(wave: np.ndarray, lips: np.ndarray = lips):
            sounds = sound_features(network, wave)
            count = min(len(lips) - 1, len(sounds))
            return score(lips[:count], sounds[:count])

        for shift in range(-10, 11):
            assert judged(np.roll(waves[number], shift * FRAME)).offset == -shift
        right.append(judged(waves[number]).confidence)
        wrong.append(judged(waves[number - 1][: len(waves[number])]).confidence)
    assert min(right) > 2 * max(wrong), (right, wrong)


def test_audio2feature_hears_what_the_mouth_does_on_held_out_clips(tmp_path: Path):
    """Five minutes on one core: lip opening follows the speech, and not that of another clip."""
    import json

    small = ["--apc.hidden_size=64", "--apc.num_layers=2", "--device=cpu", "--num_workers=0"]
    data = ["--dataset=Synthetic", "--preset=cpu", "--synthetic.persons=6", "--person.name=one"]
    apc = [
        *("--model=APC", *data[:-1], *small, "--max_steps=150", "--optim.warmup_steps=10"),
    ]
    done = run_command(apc, tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr
    mouth = ["--model=Audio2Feature", *data, *small, "--model_params.hidden=96", "--max_steps=400"]
    done = run_command(mouth, tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("results/Audio2Feature/Synthetic/*/metrics.json")
    rows = json.loads(path.read_text("utf-8"))["rows"]
    mean = {row: {k: v["mean"] for k, v in values.items()} for row, values in rows.items()}
    own, wrong, still = (mean[r] for r in ("Audio2Feature", "shuffled audio", "mean motion"))
    assert own["opening_r"] > 0.6 > wrong["opening_r"] + 0.2
    assert own["opening_error"] < 0.8 * min(wrong["opening_error"], still["opening_error"])
    assert own["L2"] < min(wrong["L2"], still["L2"])


def test_moda_fits_two_clips_with_an_untrained_wav2vec2(tiny_synthetic, tmp_path: Path):
    """Standardised losses start balanced, and 150 steps reach lip R2 above 0.9."""
    pytest.importorskip("transformers")
    import torch
    from torch.utils.data import default_collate

    from talkingface.components.models import build_model
    from talkingface.config.config import load_config
    from talkingface.pipeline.build import build_dataset, build_process

    cfg = load_config(
        "MODA",
        "Synthetic",
        preset="tiny",
        overrides={
            "root": str(tiny_synthetic / "dataset" / "Synthetic-tiny"),
            "audio_encoder": {"kind": "wav2vec2", "weights": "random", "layers": 2},
            "data": {"window": 50, "stride": 50},
        },
    )
    prepare_clips(build_process(cfg), show_progress=False)
    data = build_dataset(cfg, "train")
    batch = default_collate([data[0], data[1]])
    torch.manual_seed(0)
    model = build_model(cfg).train()
    model.statistics.fit(data)
    model.initialize(data)
    optimizer = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    first = losses_of(model, batch)
    assert 0.2 < first["head"] / first["lips"] < 5
    for _ in range(150):
        loss = losses_of(model, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Batch statistics, no noise, no dropout.
    for module in model.modules():
        if not isinstance(module, torch.nn.BatchNorm1d):
            module.training = False
    with torch.no_grad():
        fit = losses_of(model, batch)["lip_R2"]
    assert fit > 0.9


def test_moda_learns_the_lips_of_sentences_it_never_heard(tmp_path: Path):
    """Four minutes on one core: lip R2 on held-out clips, far above shuffled sound."""
    import json

    args = [
        "--model=MODA", "--dataset=Synthetic", "--preset=cpu", "--synthetic.persons=15",
        "--data.template=subject", "--max_steps=500", "--valid_metric=loss/lips", "--device=cpu",
    ]  # fmt: skip
    done = run_command(args, tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr
    rows = json.loads(next(tmp_path.glob("results/MODA/*/*/metrics.json")).read_text())["rows"]
    own, shuffled = (
        {key: value["mean"] for key, value in rows[name].items()}
        for name in ("MODA", "shuffled audio")
    )
    assert own["lip_R2"] > 0.6 > 0.2 > shuffled["lip_R2"]
    assert own["opening_r"] > 0.8 and own["Div_H"] > 0 and own["Div_M"] < 1


def test_headgan_draws_frames_of_a_real_clip_that_it_has_not_seen(shared, tmp_path, monkeypatch):
    """Two minutes on one core: 2.5 dB above the copied reference, the warped picture 0.8 dB, and
    less with the motion of somebody else."""
    found = sorted(shared.glob("real/hdtf/WDA_Alexandria*/*_000.mp4"))
    others = sorted(shared.glob("real/mimictalk/German/*.mp4"))
    if not (found and others):
        pytest.skip(f"the clips are not in {shared}")
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    monkeypatch.setenv("TALKINGFACE_ROOT", str(tmp_path))
    import headgan_learning

    rows, _ = headgan_learning.measure(
        found[0], others[0], tmp_path, "light64", 700, num_workers=0, device="cpu"
    )
    assert rows["generated"] > rows["copied"] + 2.5
    assert rows["warped"] > rows["copied"] + 0.8
    assert rows["other driver"] < rows["generated"] - 1


def test_audio2exp_hears_what_the_mouth_does_on_held_out_clips(tmp_path: Path):
    """Three minutes on one core: lips follow the voice, better than a ridge regression does."""
    import json

    command = ["--model=Audio2Exp", "--dataset=Synthetic", "--preset=cpu", "--device=cpu"]
    command += ["--synthetic.persons=6", "--num_workers=0", "--prep.mask_source=none"]
    done = run_command(command, tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("results/Audio2Exp/Synthetic/*/metrics.json")
    rows = json.loads(path.read_text("utf-8"))["rows"]
    mean = {row: {k: v["mean"] for k, v in values.items()} for row, values in rows.items()}
    own, wrong, still = (mean[r] for r in ("Audio2Exp", "shuffled audio", "mean motion"))
    assert own["opening_r"] > 0.7 > wrong["opening_r"] + 0.3
    assert own["opening_error"] < 0.8 * min(wrong["opening_error"], still["opening_error"])
    assert own["lip_R2"] > 0.3 > wrong["lip_R2"]


def test_a_small_conversation_model_hears_who_speaks(tmp_path: Path):
    """Half an hour on one core, on held-out scenes: true sound beats another's by a fifth, most
    codes are used, and the guide beats how often tokens occur."""
    import json

    args = [
        "--recipe=a2p", "--dataset=SyntheticDyad", "--preset=cpu", "--dyad.scenes=96",
        "--dyad.seconds=8", "--lip.max_steps=400", "--face.max_steps=1000", "--vq.max_steps=1500",
        "--guide.max_steps=900", "--pose.max_steps=200", "--n_preview=0",
    ]  # fmt: skip
    done = run_command(args, tmp_path, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]

    def tested(model: str) -> dict:
        (path,) = tmp_path.glob(f"results/{model}/SyntheticDyad/*/metrics.json")
        return json.loads(path.read_text("utf-8"))

    def value(model: str, row: str, output: str) -> float:
        return tested(model)["rows"][row][output]["mean"]

    assert value("A2PLip", "A2PLip", "lip_R2") > 0.9
    assert value("A2PFace", "A2PFace", "error") < 0.8 * value("A2PFace", "shuffled audio", "error")
    assert value("A2PFace", "A2PFace", "error") < value("A2PFace", "mean motion", "error")
    assert value("A2PFace", "A2PFace", "FD_g") < value("A2PFace", "mean motion", "FD_g")
    shares = [int(part.rstrip("%")) for part in
              tested("A2PGuideVQ")["codes_used"].split(" of ")[0].split(", ")]  # fmt: skip
    assert min(shares) > 50
    assert value("A2PGuideVQ", "A2PGuideVQ", "R2") > 0.6
    guide = value("A2PGuide", "A2PGuide", "cross_entropy")
    assert guide < value("A2PGuide", "unigram", "cross_entropy") - 0.1


def losses_of(model, batch, phase="main"):
    return model.calculate_loss(batch, phase, model.forward_train(batch))
