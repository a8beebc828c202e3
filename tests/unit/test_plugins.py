"""A model, a dataset and a metric of one's own, in a folder outside the repository."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from conftest import REPOSITORY, run_command

from talkingface.config.config import load_config
from talkingface.errors import ConfigError
from talkingface.registry import get_registry

CODE = '''
"""A line through numbers: the smallest model that trains."""

import numpy as np
import torch
from torch import nn

from talkingface.data.filelists import write_filelist
from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.model.abstract_talkingface import AbstractTalkingFace


class NumbersSource:
    def __init__(self, root, count):
        self.root, self.count = root, count

    @classmethod
    def from_config(cls, cfg):
        return cls(cfg.dataset_root, cfg.count)

    def ensure(self, show_progress=True):
        for split in ("train", "val", "test"):
            write_filelist(
                self.root / "filelist" / f"{split}.txt", [f"{split}{i}" for i in range(self.count)]
            )


class LineDataset(TalkingFaceDataset):
    batch_spec = {"x": "B float32", "y": "B float32"}

    def build_index(self):
        return list(range(self.cfg.count))

    def load_item(self, entry, rng):
        x = np.float32(entry / self.cfg.count)
        return {"x": x[None], "y": np.float32(3 * x + 1)[None]}


class Line(AbstractTalkingFace):
    main_network = "line"

    def __init__(self, cfg):
        super().__init__(cfg)
        self.line = nn.Linear(1, 1, bias=cfg.line.bias)

    def forward_train(self, batch):
        return {"y": self.line(batch["x"])}

    def calculate_loss(self, batch, phase, shared):
        error = ((shared["y"] - batch["y"]) ** 2).mean()
        return {"loss": error, "squared": error}
'''
KEYS = '    batch_keys = ("depth",)\n\n'
FILES = {
    "my_line_plugin.py": CODE,
    "properties/model/Line.yaml": """\
summary: a straight line, as small as a model can be
classes:
  model: my_line_plugin:Line
  dataset: my_line_plugin:LineDataset
datasets: [Numbers]
metrics: []
epochs: 3
batch_size: 4
learning_rate: 0.1
line:
  bias: true
  slope: 0.5
presets:
  tiny: {epochs: 2}
""",
    "properties/dataset/Numbers.yaml": """\
summary: numbers that lie on a line
licence: none needed
origin: made on first use
classes:
  source: my_line_plugin:NumbersSource
count: 16
""",
    "properties/metric/Loudness.yaml": """\
summary: a metric that nobody asked for
class: my_line_plugin:Loudness
outputs:
  Loudness: {direction: down, unit: dB}
params: {window: 0.4}
""",
}
PAIR = ["--model=line", "--dataset=numbers"]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("my plug-in 插件")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def repository_state() -> str:
    """Digest of all files that a plugin might be tempted to touch."""
    digest = hashlib.sha256()
    for top in ("properties", "talkingface"):
        for path in sorted((REPOSITORY / top).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_plugin_is_listed_next_to_the_built_in_entries(plugin, run_cli, way):
    if way == "option":
        done = run_cli(["--list", f"--plugin_path={plugin}"])
    else:
        done = run_cli(["--list"], env={"TALKINGFACE_PLUGINS": str(plugin)})
    assert done.returncode == 0, done.stderr
    for text in ("a straight line", "numbers that lie on a line", "a metric that nobody asked for"):
        assert text in done.stdout
    assert "HyperLipsBase" in done.stdout
    pairs = done.stdout.split("Supported pairs")[1]
    line = next(line for line in pairs.splitlines() if line.startswith("  Line "))
    assert line.split()[1] == "Numbers" and "tiny" in line


def test_without_the_folder_nothing_of_it_is_known(plugin, run_cli):
    done = run_cli(["--list"])
    assert "straight line" not in done.stdout
    assert run_cli(PAIR).returncode == 2


def test_the_keys_of_a_plugin_are_checked_by_its_yaml(plugin):
    def load(**settings):
        cli = {"plugin_path": str(plugin), **settings}
        return load_config("Line", "Numbers", cli=cli)

    cfg = load(**{"line.bias": False, "count": 8})
    assert (cfg.line.bias, cfg.count, cfg.line.slope) == (False, 8, 0.5)
    with pytest.raises(ConfigError, match="'line.bais'.*Did you mean 'line.bias'"):
        load(**{"line.bais": False})
    with pytest.raises(ConfigError, match="'line.slope' = 'steep'"):
        load(**{"line.slope": "steep"})
    with pytest.raises(ConfigError, match="'count' = 'all'"):
        load(count="all")


def test_the_name_of_a_plugin_is_suggested_too(plugin):
    with pytest.raises(ConfigError, match="Did you mean 'Line'"):
        get_registry(plugin).entry("model", "Lnie")


def test_a_plugin_refuses_datasets_that_it_does_not_list(plugin):
    with pytest.raises(ConfigError, match="Line cannot be trained on Synthetic.*Numbers"):
        load_config("Line", "Synthetic", cli={"plugin_path": str(plugin)})


def test_the_parameters_of_a_plugin_metric_are_checked(plugin):
    cli = {"plugin_path": str(plugin), "metrics": ["loudness"]}
    assert load_config("Line", "Numbers", cli=cli).metrics == ["Loudness"]
    with pytest.raises(ConfigError, match="metric_params.Loudness.windwo.*Did you mean 'window'"):
        load_config("Line", "Numbers", cli={**cli, "metric_params.Loudness.windwo": 1})


def test_a_plugin_is_trained_and_evaluated_by_the_one_command_and_nothing_else_changes(
    plugin, tmp_path
):
    before = repository_state()
    args = [*PAIR, "--device=cpu", "--num_workers=0", "--epochs=30"]
    done = run_command(args, tmp_path, env={"TALKINGFACE_PLUGINS": str(plugin)})
    assert done.returncode == 0, done.stderr
    metrics = json.loads(next(tmp_path.glob("results/Line/Numbers/*/metrics.json")).read_text())
    assert metrics["rows"]["Line"]["loss"]["mean"] < 0.05  # a line learns a line
    assert (tmp_path / "dataset/Numbers/filelist/train.txt").exists()
    assert repository_state() == before


def tinydub(folder: Path, **classes: str | None) -> Path:
    """A copy of the example plugin with other classes in its YAML; None leaves one out."""
    import shutil

    shutil.copytree(REPOSITORY / "examples/plugin", folder)
    path = folder / "properties/model/TinyDub.yaml"
    lines = []
    for line in path.read_text("utf-8").splitlines():
        role = line.strip().partition(":")[0]
        if classes.get("config", "") is None and role in ("data", "model_params"):
            continue  # without the class these are no keys
        if role in classes and line.startswith("  "):
            if classes[role] is None:
                continue
            line = f"  {role}: {classes[role]}"
        lines.append(line)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def run_tinydub(plugin: Path, root: Path):
    args = [f"--plugin_path={plugin}", "--model=TinyDub", "--dataset=Synthetic", "--preset=tiny"]
    root.mkdir()
    return run_command(args, root)


def test_a_reused_class_says_which_keys_are_missing_before_any_work(tmp_path):
    """Without the config class of the data the run would die after the data had been made."""
    pytest.importorskip("mediapipe")
    done = run_tinydub(tinydub(tmp_path / "plugin", config=None), tmp_path / "root")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "HyperLipsBaseDataset needs the keys" in done.stderr
    assert "data.syncnet_T" in done.stderr
    assert "hyperlips_config:HyperLipsBaseConfig" in done.stderr
    assert not (tmp_path / "root" / "dataset").exists()


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("    def predict(self, batch):\n        return {}\n", "predict is not used any more"),
        (
            "    def calculate_loss(self, interaction, valid=False, phase='main', shared=None):\n"
            "        return {}\n",
            "takes (batch, phase, shared)",
        ),
    ],
)
def test_a_model_of_an_earlier_version_is_reported_before_any_work(tmp_path, added, message):
    plugin = tinydub(tmp_path / "plugin")
    with open(plugin / "tinydub.py", "a", encoding="utf-8") as file:
        file.write("\n" + added)
    done = run_tinydub(plugin, tmp_path / "root")
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "root" / "dataset").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("def encode_audio", "def audio_code"), "DubbingPipeline calls encode_audio of the"),
        (("    def __init__(self, cfg)", KEYS + "    def __init__(self, cfg)"), "reads depth from"),
    ],
)
def test_a_network_or_batch_that_does_not_fit_is_reported_before_any_work(
    tmp_path, change, message
):
    pytest.importorskip("mediapipe")
    plugin = tinydub(tmp_path / "plugin")
    code = (plugin / "tinydub.py").read_text("utf-8")
    assert change[0] in code
    (plugin / "tinydub.py").write_text(code.replace(*change), "utf-8")
    done = run_tinydub(plugin, tmp_path / "root")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "root" / "dataset").exists()


@pytest.mark.parametrize("name", get_registry().names("model"))
def test_the_models_of_the_toolkit_have_what_their_classes_need(name):
    from talkingface.quick_start.preflight import _classes, _network

    cfg = load_config(name, "SyntheticDyad" if name.startswith("A2P") else "Synthetic")
    assert not [*_classes(cfg), *_network(cfg)]


def test_a_baseline_that_no_table_has_is_reported_before_any_work(monkeypatch):
    from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline
    from talkingface.quick_start.preflight import _classes

    monkeypatch.setattr(DubbingPipeline, "baselines", ("copy_referense",))
    (problem,) = _classes(load_config("HyperLipsBase", "Synthetic"))
    assert "'copy_referense'. Did you mean 'copy_reference'" in str(problem)
