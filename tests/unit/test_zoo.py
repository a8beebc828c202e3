"""The weights that ship: cards, values of weights keys, and what they give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY

from talkingface.cli import main
from talkingface.components import zoo
from talkingface.components.models import build_model, config_of_checkpoint, load_model_weights
from talkingface.components.runs import named_weights
from talkingface.config.config import load_config
from talkingface.data.face.boxes import face_boxes
from talkingface.data.media.audio import load_audio
from talkingface.data.media.reader import read_frames
from talkingface.data.synthetic.source import SHIPPED
from talkingface.errors import ConfigError
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.metrics.syncnet import sync_score
from talkingface.utils.hashes import sha256_of

LIMIT = 40_000_000  # bytes of all entries
FACTS = {"summary", "command", "scores", "data", "licence", "made", "results"}


def test_the_zoo_is_small_and_every_entry_has_a_whole_card():
    assert zoo.cards(), "the zoo is empty"
    files = [path for path in zoo.ZOO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT
    for name, card in zoo.cards().items():
        assert set(card) >= FACTS, name
        assert set(card["results"]) == set(card["scores"]), name
        file = zoo.zoo_file(f"zoo/{name}")
        assert card["made"]["sha256"] == sha256_of(file)
        assert card["made"]["bytes"] == file.stat().st_size


@pytest.mark.parametrize("name", zoo.cards())
def test_an_entry_loads_strictly_with_its_own_settings(name):
    file = zoo.zoo_file(f"zoo/{name}")
    settings = config_of_checkpoint(file)
    cfg = load_config(settings["model"], settings["dataset"], base=settings)
    assert not cfg.notes
    model = build_model(cfg)
    load_model_weights(model, file)
    assert not model.origin.official
    assert all(torch.isfinite(p).all() for p in model.network.parameters())
    text = (file.parent / "config.yaml").read_text("utf-8")
    assert "/tmp" not in text and "root:" not in text and "filelist" not in text


@pytest.mark.parametrize("name", zoo.cards())
def test_a_card_shows_that_the_model_beats_the_trivial_rows(name):
    """On the first set of its scores, held-out people; two clips of a preset decide nothing."""
    card = zoo.cards()[name]
    rows = card["results"][next(iter(card["scores"]))]
    model = rows.get(card["command"].split("--model=")[1].split()[0], {})
    for row in {"copy reference", "shuffled audio"} & set(rows):
        if "PSNR_mouth" in model:
            assert model["PSNR_mouth"] > rows[row]["PSNR_mouth"], row
            assert model["SSIM_mouth"] > rows[row]["SSIM_mouth"], row
            assert model["LMD"] < rows[row]["LMD"], row


@pytest.mark.usefixtures("tracker")
def test_the_network_of_lse_finds_a_moved_sound():
    network = sync_score.load_syncnet(zoo.zoo_file("zoo/SyncNet"))
    clip = SHIPPED / "data" / "p05" / "p05_000.mp4"  # of nobody in training
    boxes = face_boxes(ClipPair("a", clip, clip).generated_meshes(25.0), fps=25.0)
    crops = sync_score.crops(read_frames(clip, fps=25.0), boxes, network.image_size)
    lips, wave = sync_score.lip_features(network, crops), load_audio(clip, 16000)
    for frames in (-5, 0, 5):  # the sound later by so many
        sounds = sync_score.sound_features(network, np.roll(wave, 640 * frames))
        count = min(len(lips), len(sounds))
        found = sync_score.score(lips[:count], sounds[:count])
        assert abs(found.offset + frames) <= 1, (frames, found.offset)


def test_zoo_is_a_value_of_weights_keys():
    cfg = load_config("HyperLipsBase", "Synthetic")
    expected = zoo.ZOO / "HyperLipsBase" / "weights.safetensors"
    assert named_weights(cfg, "zoo") == named_weights(cfg, "zoo/HyperLipsBase") == expected
    assert named_weights(cfg, "zoo", "HyperLipsBase") == expected
    with pytest.raises(ConfigError, match="did you mean 'HyperLipsBase'|HyperLipsBase"):
        named_weights(cfg, "zoo/HyperLipBase")
    with pytest.raises(ConfigError, match="no such weights for VideoRewrit"):
        named_weights(cfg, "zoo", "VideoRewrit")


def test_none_means_no_start_weights():
    assert load_config("HyperLipsBase", "Synthetic", preset="tiny").init == "zoo"
    cli = {"init": "none"}
    assert load_config("HyperLipsBase", "Synthetic", preset="tiny", cli=cli).init is None


def test_weights_of_another_size_are_refused_before_the_preparation(root, capsys):
    words = ["--model=HyperLipsBase", "--dataset=Synthetic", "--preset=tiny"]
    assert main([*words, "--model_params.width=0.25"]) == 2
    assert "init" in capsys.readouterr().err
    assert not (root / "dataset").exists()


def test_list_names_the_entries(capsys):
    assert main(["list"]) == 0
    assert "zoo/HyperLipsBase" in capsys.readouterr().out


def test_infer_without_a_run_uses_the_zoo(root):
    from talkingface.quick_start.infer import configure

    cfg, checkpoint = configure({}, {"model": "HyperLipsBase"}, [])
    assert checkpoint == zoo.zoo_file("zoo", "HyperLipsBase")
    assert cfg.infer.mask == "lips" and cfg.model_params.image_size == 96
    cfg, _ = configure({}, {"model": "HyperLipsBase", "dataset": "grid"}, [])
    assert cfg.dataset == "GRID" and not cfg.notes  # where a source's other clips are


def test_export_writes_what_loads_elsewhere(root, tmp_path, capsys):
    folder = tmp_path / "mine"
    words = ["export", "--model=HyperLipsBase", "--checkpoint=zoo", f"--output={folder}"]
    assert main(words) == 0
    full = (folder / "weights.safetensors").stat().st_size
    assert json.loads((folder / "weights.json").read_text("utf-8"))["model"] == "HyperLipsBase"
    assert main(words) == 2 and "exists already" in capsys.readouterr().err
    half = tmp_path / "half"
    assert main(["export", f"--checkpoint={folder}/weights.safetensors", "--half",
                 f"--output={half}"]) == 0  # fmt: skip
    assert 0.45 * full < (half / "weights.safetensors").stat().st_size < 0.55 * full
    settings = yaml.safe_load((half / "config.yaml").read_text("utf-8"))
    assert settings["model_params"]["image_size"] == 96


def test_values_too_large_for_half_precision_keep_theirs():
    from talkingface.quick_start.export import halved

    state = {"a": torch.tensor([1e6]), "b": torch.tensor([1.5]), "n": torch.tensor([7])}
    half = halved(state)
    assert [half[k].dtype for k in "abn"] == [torch.float32, torch.float16, torch.int64]
    assert all(torch.equal(half[k].to(state[k].dtype), state[k]) for k in state)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.cards())
def test_the_scores_of_an_entry_are_those_of_its_card(name, monkeypatch, tmp_path):
    """On the clips that ship; ``make_zoo.py --check`` repeats all scores."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    monkeypatch.setenv("TALKINGFACE_ROOT", str(tmp_path))
    import make_zoo

    card = zoo.cards()[name]
    card["scores"] = {k: v for k, v in card["scores"].items() if "preset tiny" in k}
    card["results"] = {k: v for k, v in card["results"].items() if k in card["scores"]}
    assert make_zoo.check(name, card) == []


def test_the_overview_shows_open_and_closed_mouths_in_turns():
    from talkingface.quick_start.overview import face_of, moments_of

    points = np.zeros((60, 478, 2), np.float32)
    points[:, 14, 1] = 5 + 4 * np.sin(np.arange(60))
    moments = moments_of(points)
    opening = points[moments, 14, 1]
    assert len(moments) == 6 and (opening[::2] < 3).all() and (opening[1::2] > 7).all()
    points[:, 263, 0] = 40
    face = face_of(np.full((50, 50, 3), 9, np.uint8), points[0])  # beyond the border
    assert face.shape == (160, 160, 3) and (face == 9).all()


def test_the_clips_of_the_zoo_are_of_people_of_its_own():
    settings = yaml.safe_load(Path(REPOSITORY / "benchmarks/zoo_people.yaml").read_text("utf-8"))
    default = load_config("HyperLipsBase", "Synthetic").synthetic
    first = settings["synthetic"]["first_person"]
    assert first >= default.first_person + 500
