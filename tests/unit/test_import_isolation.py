"""No model, dataset or metric drags in another; a missing package harms only its users."""

from __future__ import annotations

import importlib
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


@pytest.mark.parametrize("model", MODELS)
def test_a_model_imports_no_other_model_and_no_file_reader(model):
    own = module_of(REGISTRY.entry("model", model), "model")
    others = {module_of(REGISTRY.entry("model", name), "model") for name in MODELS} - {own}
    floors_above = [
        "talkingface.trainer",
        "talkingface.evaluator",
        "talkingface.pipeline",
        "talkingface.quick_start",
        "talkingface.data.dataprocess.base",
        "talkingface.cli",
    ]
    done = python(
        f"import sys\nimport {own}\n"
        f"print([m for m in {sorted(others) + floors_above!r} if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("role", ["dataset", "dataprocess", "config"])
def test_the_data_classes_of_a_model_import_no_model(model, role):
    module = module_of(REGISTRY.entry("model", model), role)
    if not module:
        pytest.skip(f"{model} has no {role} of its own")
    families = "talkingface.model.audio_driven_talkingface."
    done = python(
        f"import sys\nimport {module}\n"
        # Families share declarations of keys, which hold no network.
        f"print([m for m in sys.modules if m.startswith({families!r}) and m != {module!r}"
        " and not m.endswith('_config') and not hasattr(sys.modules[m], '__path__')])"
    )
    assert done.stdout.strip() == "[]", done.stderr


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


def test_the_former_place_of_a_module_says_where_it_is_now():
    """Models of users import modules of the toolkit by name."""
    from talkingface.utils.moved import MOVED

    for old, new in MOVED.items():
        with pytest.raises(ModuleNotFoundError, match=re.escape(f"{old} is now {new}")):
            importlib.import_module(old)
        importlib.import_module(new)
    with pytest.raises(ModuleNotFoundError, match="is now talkingface.data.dataprocess.lsp"):
        importlib.import_module("talkingface.data.lsp.files")
