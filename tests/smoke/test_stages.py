"""Models in a row as a user runs them (minutes; run with -m slow)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, SCRIPT, SMALL, run_command
from trainkit import differences

from talkingface.data.media.reader import read_frames

pytestmark = pytest.mark.slow


def checkpoint(root: Path, model: str, dataset: str) -> dict:
    (path,) = root.glob(f"saved/{model}/{dataset}/*/checkpoints/last.ckpt")
    return torch.load(path, weights_only=True)


def test_the_two_commands_of_the_seed_run_on_one_unmodified_mead_yaml(shared, tmp_path):
    """Contract A18 and A19, on the MEAD samples."""
    clips = shared / "real" / "mead"
    before = (REPOSITORY / "properties/dataset/MEAD.yaml").read_bytes()
    (tmp_path / "dataset/MEAD").mkdir(parents=True)
    (tmp_path / "dataset/MEAD/data").symlink_to(clips)
    for model in ("HyperLipsBase", "HyperLipsHR"):
        done = run_command(
            [f"--model={model}", "--dataset=MEAD", "--preset=tiny"], tmp_path, timeout=900
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "copy reference" in done.stdout
    assert (REPOSITORY / "properties/dataset/MEAD.yaml").read_bytes() == before
    parts = {p.name for p in (tmp_path / "dataset/MEAD/preprocessed_data").iterdir()}
    assert {"imgs", "HR_Train_Dateset"} <= parts
    trained = checkpoint(tmp_path, "HyperLipsHR", "MEAD")
    (base,) = tmp_path.glob("saved/HyperLipsBase/MEAD/*/checkpoints/best.ckpt")
    again = ["--model=HyperLipsHR", "--dataset=MEAD", "--preset=tiny", "--stages=train"]
    again.append(f"--weights.base={base}")
    assert run_command([*again, "--max_steps=1", "--checkpoint_dir=one"], tmp_path).returncode == 0
    (first,) = tmp_path.glob("one/HyperLipsHR/MEAD/*/checkpoints/last.ckpt")
    start = torch.load(first, weights_only=True)["state_dict"]
    for network in ("generator", "discriminator"):  # each by its own optimizer
        weights = [k for k in start if k.startswith(network) and k.endswith("weight")]
        assert weights and any(not torch.equal(start[k], trained["state_dict"][k]) for k in weights)
    assert {key.split(".")[0] for key in start} == {"generator", "discriminator"}
    assert trained["frozen_weights"]["base"]["path"].endswith("best.ckpt")


def recipe(root: Path) -> list[str]:
    return [
        *("--recipe=hyperlips", "--dataset=Synthetic", "--device=cpu", "--eval_clips=1"),
        *("--n_preview=0", "--save_minutes=0.02", "--base.data.syncnet_T=5", *SMALL),
    ]


def test_a_recipe_that_is_killed_goes_on_where_it_was_and_is_then_done(tmp_path):
    environment = {"TALKINGFACE_ROOT": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *recipe(tmp_path)],
        env={**__import__("os").environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("saved/HyperLipsBase/*/*/checkpoints/last.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (expert,) = tmp_path.glob("saved/SyncExpert/*/*/checkpoints/last.ckpt")
    stamp = expert.stat().st_mtime_ns

    done = run_command(recipe(tmp_path), tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert expert.stat().st_mtime_ns == stamp
    runs = {model: len(list(tmp_path.glob(f"saved/{model}/Synthetic/*/config.yaml")))
            for model in ("SyncExpert", "HyperLipsBase", "HyperLipsHR")}  # fmt: skip
    assert runs == {"SyncExpert": 1, "HyperLipsBase": 1, "HyperLipsHR": 1}
    base = checkpoint(tmp_path, "HyperLipsBase", "Synthetic")
    assert Path(base["frozen_weights"]["sync_expert"]["path"]).parents[1] == expert.parents[1]
    metrics = json.loads(next(tmp_path.glob("results/HyperLipsHR/*/*/metrics.json")).read_text())
    assert "first stage enlarged" in metrics["rows"]

    again = run_command(recipe(tmp_path), tmp_path, timeout=300)
    assert again.returncode == 0 and again.stdout.count(": done,") == 3
    assert differences(base, checkpoint(tmp_path, "HyperLipsBase", "Synthetic")) == []


def test_the_whole_portrait_is_trained_by_its_name_and_refuses_parts_of_different_ears(
    tmp_path, tone_wav
):
    """One command trains the four parts; another APC below one part is noticed."""
    base = ["--dataset=Synthetic", "--device=cpu", "--eval_clips=1", *SMALL]
    done = run_command(["--model=live_speech_portraits", *base], tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    trained = {path.parents[3].name for path in tmp_path.glob("saved/*/*/*/checkpoints/best.ckpt")}
    parts = {"APC", "Audio2Feature", "Audio2Headpose", "Feature2Face"}
    assert trained == {*parts, "live_speech_portraits"}
    (joined,) = tmp_path.glob("saved/live_speech_portraits/*/*/checkpoints/best.ckpt")
    pinned = torch.load(joined, weights_only=True)["frozen_weights"]
    assert set(pinned) == {"apc", "audio2feature", "audio2headpose", "feature2face"}
    frames = {}
    for action in ("live", "infer"):
        frames[action] = tmp_path / f"{action}.mp4"
        speak = [f"--{action}", "--model=live_speech_portraits", "--source=p00", "--device=cpu"]
        speak += [f"--audio={tone_wav}", f"--output={frames[action]}", "--infer.motion.causal=true"]
        done = run_command([*speak, "--infer.crf=0"], tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    live, whole = (np.stack(list(read_frames(path))).astype(int) for path in frames.values())
    # Equal but for lines that fall on the next pixel by rounding.
    assert live.shape == whole.shape and (np.abs(live - whole) > 8).mean() < 0.002
    done = run_command(
        ["--benchmark", "--models=live_speech_portraits,Feature2Face", "--datasets=Synthetic",
         "--preset=tiny", "--metrics=PSNR", "--eval_clips=1", "--device=cpu", *SMALL[1:]],
        tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for command in (["--model=APC", "--seed=7"], ["--model=Audio2Headpose"]):
        done = run_command([*command, *base, "--stages=preprocess,train"], tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
    done = run_command(
        ["--model=live_speech_portraits", *base, "--stages=train,evaluate"], tmp_path, timeout=300
    )
    # Runs without an evaluation count as finished; the newest head was trained with the newer APC.
    assert done.returncode == 2 and "were trained with different files" in done.stderr, done.stderr


def test_the_recipe_of_moda_runs_from_a_foreign_folder_and_speaks(tmp_path, tone_wav, talking_clip):
    """Preparation to evaluation without network or GPU, in a path with spaces and Chinese letters;
    then any video, any length, with and without chance."""
    root = tmp_path / "das Projekt 数字人"
    elsewhere = tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    env = {"TALKINGFACE_ROOT": str(root)}
    args = ["--recipe=moda", "--dataset=Synthetic", "--device=cpu", "--eval_clips=1", *SMALL]
    done = run_command(args, elsewhere, env=env, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    again = run_command(args, elsewhere, env=env, timeout=300)
    assert again.returncode == 0 and again.stdout.count(": done,") == 4
    (table,) = root.glob("results/MODAPortrait/Synthetic/*/metrics.json")
    assert {"shuffled audio", "copy reference"} <= set(json.loads(table.read_text())["rows"])
    seen = {}
    for name, keys in {
        "one": ["--seed=1"],
        "two": ["--seed=2"],
        "calm": ["--seed=1", "--infer.motion.temperature=0"],
        "calm2": ["--seed=2", "--infer.motion.temperature=0"],
    }.items():
        video = tmp_path / f"{name}.mp4"
        command = ["--infer", "--model=MODAPortrait", f"--audio={tone_wav}", "--device=cpu",
                   f"--source={talking_clip}", f"--output={video}", "--infer.crf=0"]  # fmt: skip
        done = run_command([*command, *keys], elsewhere, env=env, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        seen[name] = np.stack(list(read_frames(video)))
    assert len(seen["one"]) == 50
    assert np.array_equal(seen["calm"], seen["calm2"])
    assert not np.array_equal(seen["one"], seen["two"])
    # Exported weights are as good as the checkpoint, units included.
    (run,) = root.glob("saved/MODAFaCo/Synthetic/*/weights.safetensors")
    video = tmp_path / "exported.mp4"
    command[-2] = f"--output={video}"
    exported = [f"--weights.faco={run}", "--seed=1", "--infer.motion.temperature=0"]
    done = run_command([*command, *exported], elsewhere, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert np.array_equal(np.stack(list(read_frames(video))), seen["calm"])
    done = run_command([*command, "--fps=30"], elsewhere, env=env, timeout=300)
    assert done.returncode == 2 and "--fps=25" in done.stderr


def test_the_recipe_of_headgan_gives_pictures_that_a_voice_can_drive(tmp_path, tone_wav):
    args = ["--recipe=headgan", "--dataset=Synthetic", "--device=cpu", "--eval_clips=1"]
    done = run_command([*args, "--n_preview=0", *SMALL], tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    speech = checkpoint(tmp_path, "Audio2Exp", "Synthetic")["other_parameter"]
    pictures = checkpoint(tmp_path, "HeadGAN", "Synthetic")["other_parameter"]
    assert torch.equal(speech["face_model"]["exp_basis"], pictures["face_model"]["exp_basis"])
    clip = sorted((tmp_path / "dataset/Synthetic-tiny/data").rglob("*.mp4"))[0]
    target = tmp_path / "spoken.mp4"
    spoken = [f"--audio={tone_wav}", f"--source={clip}", f"--output={target}"]
    done = run_command(["--infer", "--model=HeadGAN", *spoken], tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    frames = list(read_frames(target, fps=25))
    assert len(frames) == 50 and frames[0].shape == (64, 64, 3)
    assert any(not np.array_equal(frames[0], frame) for frame in frames[1:])


def test_the_released_layout_without_lips_trains_and_is_killed_and_goes_on(tmp_path):
    """A person's folder as it is published: no lip points, statistics beside the scenes."""
    from talkingface.config.config import load_config
    from talkingface.data.dataprocess.a2p.files import SceneFiles, learn_stats

    cfg = load_config(
        "A2PFace", "SyntheticDyad", preset="tiny", overrides={"root": str(tmp_path / "made")}
    )
    cfg.registry.resolve(cfg.dataset_entry, "source").from_config(cfg).ensure(show_progress=False)
    folder = tmp_path / "dataset/PXB184/data"
    folder.parent.mkdir(parents=True)
    (tmp_path / "made/data").rename(folder)
    for path in folder.glob("*_lip_vertices.npy"):
        path.unlink()
    stats = learn_stats([SceneFiles.of_folder(folder, "scene01")], wrap=True).content()
    torch.save({**stats, "full_mean": np.zeros(3)}, folder / "data_stats.pth")
    command = ["--recipe=a2p", "--dataset=PXB184", "--preset=tiny", "--device=cpu"]
    refused = run_command(command, tmp_path, timeout=300)
    assert refused.returncode == 3 and "--lip=null" in refused.stderr
    done = run_command([*command, "--lip=null"], tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "lip (A2PLip): given, left out" in done.stdout + done.stderr
    again = run_command([*command, "--lip=null"], tmp_path, timeout=300)
    assert again.returncode == 0 and again.stdout.count(": done,") == 5


def test_a_conversation_model_resumes_exactly(tmp_path):
    """Noise, dropped conditions and codebooks go on as if nothing had happened."""
    for model, steps in (("A2PFace", 12), ("A2PGuideVQ", 12)):
        base = [f"--model={model}", "--dataset=SyntheticDyad", "--preset=tiny", "--device=cpu"]
        base += ["--stages=preprocess,train", "--epochs=100", "--num_workers=0"]
        if model == "A2PFace":
            base.append("--lip_cond=none")
        for name, commands in {
            "whole": [[f"--max_steps={steps}"]],
            "parts": [["--max_steps=5"], [f"--max_steps={steps}", "--resume=auto"]],
        }.items():
            for more in commands:
                done = run_command(
                    [*base, f"--checkpoint_dir={name}", *more], tmp_path, timeout=300
                )
                assert done.returncode == 0, done.stderr[-3000:]
        found = []
        for name in ("whole", "parts"):
            (path,) = tmp_path.glob(f"{name}/{model}/SyntheticDyad/*/checkpoints/last.ckpt")
            state = torch.load(path, weights_only=True)
            del state["config"], state["progress"]["seconds"]
            found.append(state)
        assert found[0]["global_step"] == steps
        assert differences(*found) == []
