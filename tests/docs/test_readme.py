"""The README is true: its commands work, its tables name what exists, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import dataset_for

import talkingface
from talkingface.config.config import iter_fields, load_config
from talkingface.registry import get_registry

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    path
    for pattern in ("README.md", "docs/*.md", "*/README.md")
    for path in REPOSITORY.glob(pattern)
]
PYTHON = "python run_talkingface.py "


def commands() -> list[list[str]]:
    """Arguments of every run_talkingface command in the README and then in docs, in order."""
    texts = [re.sub(r"\\\n\s*", "", path.read_text("utf-8")) for path in DOCUMENTS]
    lines = [line.strip() for text in texts for line in text.splitlines() if line[:4].isspace()]
    found = [line[line.index(PYTHON) + len(PYTHON) :] for line in lines if PYTHON in line]
    return [shlex.split(text, comments=True) for text in found if "`" not in text]


def with_word(word: str) -> list[list[str]]:
    chosen = [args for args in commands() if any(word in arg for arg in args)]
    assert chosen, f"the README shows no command with {word}"
    return chosen


def test_exactly_two_commands_are_marked_for_the_continuous_integration():
    blocks = re.findall(r"<!-- ci:begin -->(.*?)<!-- ci:end -->", README, re.S)
    assert [block.strip().split("&&")[0].strip() for block in blocks] == [
        "pip install -r requirements.txt",
        "pip install -r requirements.txt -r tests/requirements.txt",
    ]


def test_the_settings_of_every_training_command_are_valid():
    registry = get_registry()
    checked = 0
    for args in commands():
        given = dict(
            arg[2:].replace("$SLURM_ARRAY_TASK_ID", "1").split("=", 1) for arg in args if "=" in arg
        )
        actions = {"infer", "prepare"} & {arg[2:] for arg in args}
        if actions or not {"model", "dataset"} <= set(given):
            continue
        given.pop("plugin_path", None)
        if given["dataset"] not in registry.names("dataset"):  # the reader's own
            given["dataset"] = "Synthetic"
        if given["model"] in registry.names("model"):
            load_config(cli=given)
            checked += 1
    assert checked >= 4


@pytest.mark.slow
def test_the_own_video_chain_works_as_written(run_cli, talking_clip, tone_wav, tmp_path):
    """--prepare, train, --infer with the README's words; only the training is shortened."""
    from talkingface.data.media.audio import load_audio
    from talkingface.data.media.reader import read_frames
    from talkingface.data.media.writer import VideoWriter

    frames = list(read_frames(talking_clip))
    wave = load_audio(talking_clip)
    for name in ("me.mp4", "more.mov"):
        # Long enough for the default cut: the clip forwards and backwards, several times.
        with VideoWriter(tmp_path / name, 25, audio=(np.tile(wave, 10), 16000)) as writer:
            for index in range(10):
                for frame in frames if index % 2 == 0 else frames[::-1]:
                    writer.write(frame)
    shutil.copy(tone_wav, tmp_path / "speech.wav")
    environment = {"TALKINGFACE_ROOT": str(tmp_path / "root")}
    prepare, train, infer = (
        with_word("--prepare")[0],
        [a for a in with_word("--dataset=my_face") if "--prepare" not in a][0],
        with_word("--infer")[0],
    )
    short = ["--preset=tiny", "--epochs=1", "--eval_clips=1", "--data.windows_per_clip=2"]
    for args in (prepare, [a for a in train if "preset" not in a] + short, infer):
        done = run_cli(args, env=environment, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, (args, done.stdout, done.stderr)
    assert sum(1 for _ in read_frames(tmp_path / "out.mp4")) > 40


@pytest.mark.slow
def test_the_example_of_a_model_of_ones_own_runs_as_written(run_cli, tmp_path):
    args = with_word("--plugin_path=examples/plugin")[0]
    environment = {"TALKINGFACE_ROOT": str(tmp_path)}
    done = run_cli([*args, "--epochs=1"], env=environment, cwd=REPOSITORY, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "TinyDub" in done.stdout and "copy reference" in done.stdout
    line = next(text for text in done.stdout.splitlines() if text.startswith("try it:"))
    words = [*shlex.split(line)[4:-1], f"--output={tmp_path / 'out.mp4'}"]
    assert run_cli(words, env=environment, cwd=REPOSITORY, timeout=300).returncode == 0


def test_the_example_with_data_of_its_own_learns_and_is_not_refused(
    run_cli, tiny_synthetic, tmp_path
):
    """The second command of docs/extending.md, on the smaller set that the tests share."""
    from conftest import SMALL

    shutil.copytree(tiny_synthetic / "dataset", tmp_path / "dataset")
    args = ["--plugin_path=examples/jawwarp", "--model=JawWarp", "--dataset=Synthetic", *SMALL]
    page = (REPOSITORY / "docs/extending.md").read_text("utf-8")
    assert " ".join([*args[:3], "--preset=tiny"]) in page
    environment = {"TALKINGFACE_ROOT": str(tmp_path)}
    done = run_cli(args, env=environment, cwd=REPOSITORY, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = next(tmp_path.glob("results/JawWarp/Synthetic/*"))
    rows = json.loads((folder / "metrics.json").read_text("utf-8"))["rows"]
    assert rows["JawWarp"]["LMD"]["mean"] < rows["shuffled audio"]["LMD"]["mean"]


def test_the_page_of_the_contracts_names_members_that_exist():
    from talkingface.data.dataprocess.video import VideoProcess
    from talkingface.data.dataset.base import TalkingFaceDataset
    from talkingface.model.abstract_talkingface import AbstractTalkingFace
    from talkingface.pipeline.base import Pipeline

    page = (REPOSITORY / "docs/extending.md").read_text("utf-8")
    parts = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.S | re.M))
    classes = {"Model": AbstractTalkingFace, "Dataset": TalkingFaceDataset,
               "Preparation": VideoProcess, "Pipeline": Pipeline}  # fmt: skip
    for title, kind in classes.items():
        rows = re.findall(r"^\| (`.*?) \| ", parts[title], re.M)
        names = [name for row in rows for name in re.findall(r"`(\w+)", row)]
        own = {
            name
            for base in kind.__mro__
            for name in (*vars(base), *base.__dict__.get("__annotations__", {}))
        } | {
            name  # attributes that the constructors set
            for base in kind.__mro__
            for name in getattr(base.__init__, "__code__", kind.__init__.__code__).co_names
        }
        assert len(names) >= 4 and set(names) <= own, set(names) - own


@pytest.mark.parametrize("kind", ["model", "metric"])
def test_the_tables_name_everything_that_is_registered(kind):
    names = {"model": talkingface.list_models, "metric": talkingface.list_metrics}[kind]()
    name = {"model": "models.md", "metric": "evaluation.md"}[kind]
    page = (REPOSITORY / "docs" / name).read_text("utf-8")
    for name in names:
        assert re.search(rf"^\| .*\b{name}\b", page, re.M), f"{name} stands in no table"


def test_links_to_files_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text("utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_key_of_every_yaml_has_a_meaning():
    registry = get_registry()
    for model in registry.names("model"):
        cfg = load_config(model, dataset_for(model))
        for name, field in iter_fields(cfg.schema):
            assert field.description, f"{model}: {name} has no description"


def test_the_python_lines_of_the_readme_name_what_exists():
    block = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    for name in re.findall(r"talkingface\.(\w+)\(", block):
        assert callable(getattr(talkingface, name))
