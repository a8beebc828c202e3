"""No model, dataset or metric drags in another; a missing package harms only its users."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY, run_command

from talkingface.registry import Registry

REGISTRY = Registry()
MODELS = REGISTRY.names("model")


def module_of(entry, role: str) -> str:
    return (entry.target(role) or "").partition(":")[0]


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_floors_of_pyproject_hold():
    """Also for imports inside functions, which the tests below would not see."""
    pytest.importorskip("importlinter")
    # In a process of its own: it changes the logging of the whole process.
    done = python("from importlinter.cli import lint_imports; exit(lint_imports(cache_dir=None))")
    assert done.returncode == 0, done.stdout + done.stderr


PROBE = """
import importlib, json, os, sys
import torch, torchvision, lightning_fabric  # slow to load, and the same for all
for name in sys.argv[1:]:
    if os.fork():
        if os.wait()[1]:
            sys.exit(f"{name} cannot be imported")
        continue
    importlib.import_module(name)
    own = {m: hasattr(v, "__path__") for m, v in sys.modules.items() if m.startswith("talkingface")}
    print(json.dumps([name, own]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def imported_by() -> dict[str, dict[str, bool]]:
    """Class module of a model -> our modules that its import loads -> whether it is a package."""
    if not hasattr(os, "fork"):
        pytest.skip("needs a system with fork")
    entries = [REGISTRY.entry("model", name) for name in MODELS]
    roles = ("model", "dataset", "dataprocess", "config")
    modules = {module_of(entry, role) for entry in entries for role in roles} - {""}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *sorted(modules)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("model", MODELS)
def test_a_model_imports_no_other_model_and_no_file_reader(model, imported_by):
    own = module_of(REGISTRY.entry("model", model), "model")
    others = {module_of(REGISTRY.entry("model", name), "model") for name in MODELS} - {own}
    floors_above = {
        "talkingface.trainer",
        "talkingface.evaluator",
        "talkingface.pipeline",
        "talkingface.quick_start",
        "talkingface.data.dataprocess.base",
        "talkingface.cli",
    }
    assert own in imported_by[own]
    assert not (others | floors_above) & set(imported_by[own])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("role", ["dataset", "dataprocess", "config"])
def test_the_data_classes_of_a_model_import_no_model(model, role, imported_by):
    module = module_of(REGISTRY.entry("model", model), role)
    if not module:
        pytest.skip(f"{model} has no {role} of its own")
    # Families share declarations of keys, which hold no network.
    networks = [
        name
        for name, package in imported_by[module].items()
        if name.startswith("talkingface.model.audio_driven_talkingface.")
        and name != module
        and not name.endswith("_config")
        and not package
    ]
    assert not networks


def test_every_model_can_be_built_without_media_packages(block_import):
    blocked = block_import("mediapipe", "av", "librosa", "cv2", "tensorboard", "wandb", "skimage")
    code = (
        "import talkingface\n"
        "for name in talkingface.list_models():\n"
        "    print(name, talkingface.create_model(name, 'tiny').training, flush=True)"
    )
    done = python(code, **blocked)
    built = dict(line.split() for line in done.stdout.splitlines())
    assert built == dict.fromkeys(MODELS, "False"), done.stderr


def test_everything_can_be_listed_without_any_package_but_yaml_and_pydantic(block_import, tmp_path):
    names = ("torch", "numpy", "mediapipe", "av", "cv2", "scipy", "librosa", "lightning_fabric")
    for args in (["--list"], ["-m", "HyperLipsBase", "-d", "Synthetic", "--print_config"]):
        done = run_command(args, tmp_path, env=block_import(*names))
        assert done.returncode == 0, done.stderr
        assert "HyperLipsBase" in done.stdout


def test_a_missing_package_is_reported_before_any_work_with_the_remedy(block_import, tmp_path):
    done = run_command(
        ["-m", "HyperLipsBase", "-d", "Synthetic", "--preset=tiny"],
        tmp_path,
        env=block_import("mediapipe"),
    )
    assert done.returncode == 2
    assert "'mediapipe'" in done.stderr and "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "dataset").exists()


def test_a_missing_system_library_of_opencv_is_explained(block_import):
    text = "libGL.so.1: cannot open shared object file: No such file or directory"
    done = python(
        "from talkingface.utils.env import import_cv2\n"
        "from talkingface.errors import EnvironmentProblem\n"
        "try:\n    import_cv2()\nexcept EnvironmentProblem as error:\n    print(error)",
        **block_import("cv2", message=text),
    )
    assert "libGL.so.1" in done.stdout, done.stderr
    for remedy in ("apt-get install", "libgl1", "dnf install", "conda install"):
        assert remedy in done.stdout


def test_another_failure_of_an_import_is_passed_on_in_words(block_import):
    done = python(
        "from talkingface.utils.env import require\n"
        "from talkingface.errors import EnvironmentProblem\n"
        "try:\n    require('av', why='Writing video')\n"
        "except EnvironmentProblem as error:\n    print(error)",
        **block_import("av", message="DLL load failed"),
    )
    assert "Writing video needs 'av'" in done.stdout and "DLL load failed" in done.stdout


def test_an_optional_package_names_its_extra(block_import):
    done = python(
        "from talkingface.utils.env import require\n"
        "from talkingface.errors import EnvironmentProblem\n"
        "try:\n    require('wandb', why='log_wandb', extra='wandb')\n"
        "except EnvironmentProblem as error:\n    print(error)",
        **block_import("wandb"),
    )
    assert "log_wandb needs the package 'wandb'" in done.stdout
    assert "pip install -e '.[wandb]'" in done.stdout


# Former package, present package, modules (``former=present`` where the name changed too).
MOVES = (
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.hyperlips",
        "hyperlips_config hyperlips_networks hyperlipsbase hyperlipshr hyperlipshr_config"
        " hyperlipshr_networks syncexpert",
    ),
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.lsp",
        "lsp_config lsp_motion_networks audio2feature audio2headpose feature2face apc",
    ),
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.moda",
        "moda_config moda_networks modafaco modarenderer modarenderer_networks=modarenderer",
    ),
    (
        "model.audio_driven_talkingface.moda",
        "model.audio_driven_talkingface.moda",
        "modarenderer_networks=modarenderer",
    ),
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.a2p",
        "a2p_common a2p_config a2p_diffusion a2p_guide a2p_guide_networks a2p_networks"
        " a2plip a2plip_networks",
    ),
    (
        "model.audio_driven_talkingface.a2p",
        "model.audio_driven_talkingface.a2p",
        "a2p_joined_config=a2p_config a2p_statistics=a2p_common",
    ),
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.syncnet",
        "syncnet_config syncnet_networks",
    ),
    (
        "model.image_driven_talkingface",
        "model.image_driven_talkingface.headgan",
        "headgan_config headgan_networks headgan_learnt=headgan_statistics audio2exp",
    ),
    ("data.dataset", "data.dataset.hyperlips", "hyperlipsbase_dataset hyperlipshr_dataset"),
    ("data.dataset", "data.dataset.lsp", "apc_dataset lsp_face_dataset lsp_motion_dataset"),
    ("data.dataset", "data.dataset.moda", "moda_dataset moda_renderer_dataset"),
    ("data.dataset", "data.dataset.a2p", "a2p_dataset"),
    ("data.dataset", "data.dataset.headgan", "headgan_dataset audio2exp_dataset"),
    ("data.dataset", "data.dataset.syncnet", "syncnet_dataset"),
    ("data.dataprocess", "data.dataprocess.hyperlips", "hyperlipshr_process"),
    ("data.dataprocess", "data.dataprocess", "hyperlipsbase_process=face_crops"),
    ("data.dataprocess.hyperlips", "data.dataprocess", "hyperlipsbase_process=face_crops"),
    ("data.dataprocess", "data.dataprocess.lsp", "apc_process lsp_process lsp_motion_process"),
    ("data.dataprocess", "data.dataprocess.moda", "moda_process"),
    ("data.dataprocess", "data.dataprocess.a2p", "a2p_process"),
    ("data.dataprocess.a2p", "data", "config=scenes synthetic=synthetic.dyad"),
    ("data.dataprocess", "data.dataprocess.headgan", "headgan_process"),
    ("data.dataprocess", "data.dataprocess.syncnet", "syncnet_process"),
    # Whole packages, except face_model of data.headgan, which moved to data.face.
    ("data", "data.dataprocess", "lsp moda a2p headgan"),
    ("pipeline", "pipeline.hyperlips", "dubbing_hr"),
    ("pipeline", "pipeline.lsp", "portrait lsp_motion"),
    ("pipeline", "pipeline.moda", "moda_motion"),
    ("model.audio_driven_talkingface", "model.layers", "apc_networks feature2face_networks"),
    ("model", "model", "painter=conditional_gan"),
    (
        "model.audio_driven_talkingface",
        "model",
        "live_speech_portraits=joined lsp.live_speech_portraits=joined"
        " moda_portrait=joined moda.moda_portrait=joined",
    ),
    ("evaluator", "evaluator.metrics.syncnet", "sync_score"),
    ("evaluator.metrics", "evaluator.metrics.syncnet", "lse"),
    ("config", "utils", "loader=yaml_files suggest"),
    ("quick_start", "components", "helpers=store"),
    ("quick_start", "quick_start", "earlier=prerequisites"),
    ("model.audio_driven_talkingface", "model", "painter_config=conditional_gan_config"),
)


def test_the_former_place_of_a_module_says_where_it_is_now():
    """Models of users import modules of the toolkit by name."""
    for former, present, names in MOVES:
        for name in names.split():
            old, _, new = name.partition("=")
            old, new = f"talkingface.{former}.{old}", f"talkingface.{present}.{new or old}"
            with pytest.raises(ModuleNotFoundError, match=re.escape(f"{old} is now {new}") + "$"):
                importlib.import_module(old)
            importlib.import_module(new)


def test_the_former_place_of_a_package_says_where_it_is_now():
    with pytest.raises(ModuleNotFoundError, match="is now talkingface.data.dataprocess.lsp"):
        importlib.import_module("talkingface.data.lsp.files")


@pytest.mark.parametrize("name", ["model.nothing", "nothing", "evaluator.trainer", "data.lsp_lsp"])
def test_a_module_that_never_existed_is_just_not_found(name):
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        importlib.import_module(f"talkingface.{name}")
