"""``import talkingface``: the functions for Python and notebooks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY, SMALL

import talkingface
from talkingface.errors import ConfigError, WeightsError

SIZES = {"model_params.image_size": 64, "model_params.width": 0.25}


def python(code: str, root, **env: str) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "TALKINGFACE_ROOT": str(root), **env},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_neither_torch_nor_yaml(root):
    code = (
        "import sys, talkingface\n"
        "print([m for m in ('torch', 'numpy', 'yaml') if m in sys.modules])"
    )
    assert python(code, root).strip() == "[]"


def test_every_public_name_exists_and_is_documented():
    assert set(talkingface.__all__) <= set(dir(talkingface))
    for name in talkingface.__all__:
        assert getattr(talkingface, name).__doc__


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        talkingface.nothing  # noqa: B018


def test_lists_are_names_in_canonical_spelling():
    assert {"HyperLipsBase", "SyncExpert"} <= set(talkingface.list_models())
    assert {"Synthetic", "MEAD"} <= set(talkingface.list_datasets())
    assert {"PSNR", "LMD"} <= set(talkingface.list_metrics())


def test_a_metric_is_made_by_name_with_its_parameters_checked():
    metric = talkingface.create_metric("ssim", kind="uniform7")
    assert metric.name == "SSIM" and metric.params["kind"] == "uniform7"
    with pytest.raises(ConfigError, match="no parameter 'kidn'.*'kind'"):
        talkingface.create_metric("SSIM", kidn="uniform7")
    with pytest.raises(ConfigError, match="Did you mean 'SSIM'"):
        talkingface.create_metric("SSMI")


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("torch")
    return talkingface.create_model("syncexpert", "tiny")


def test_a_bare_model_is_in_eval_mode_on_the_cpu(model):
    assert type(model).__name__ == "SyncExpert" and not model.training
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_weights_are_loaded_by_name_and_strictly(model, tmp_path):
    import torch

    other = talkingface.create_model("SyncExpert", "tiny")
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.add_(1.0)
    path = tmp_path / "weights.pth"
    torch.save(other.network.state_dict(), path)
    talkingface.load_weights(model, path)
    loaded, wanted = model.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(loaded[key], wanted[key]) for key in wanted)


def test_weights_that_do_not_fit_are_refused_with_the_names(model):
    state = dict(model.network.state_dict())
    gone = next(iter(state))
    del state[gone]
    with pytest.raises(WeightsError) as caught:
        talkingface.load_weights(model, state)
    assert gone.rsplit(".", 1)[0].split(".")[0] in str(caught.value)


def test_overrides_choose_the_size_of_a_model(model):
    wide = talkingface.create_model("SyncExpert", "tiny", {"model_params.width": 0.25})
    assert size_of(wide) > size_of(model)


def test_a_wrong_override_is_refused_with_the_nearest_key():
    with pytest.raises(ConfigError, match="model_params.width"):
        talkingface.create_model("SyncExpert", overrides={"model_params.widht": 1})


def test_run_trains_from_python_and_never_reads_the_command_line(tiny_synthetic):
    overrides = {
        "synthetic.persons": 2,
        "max_steps": 1,
        "device": "cpu",
        "num_workers": 0,
        "log_level": "error",
    }
    assert SMALL[1:] == [f"--{key}={overrides[key]}" for key in list(overrides)[:1]]
    code = (
        "import sys, math, talkingface\n"
        "sys.argv = ['notebook', '--epochs=nonsense', '--unknown_key=1', '-f', 'kernel.json']\n"
        f"given = {overrides!r}\n"
        "result = talkingface.run('syncexpert', 'synthetic', overrides=given, preset='tiny')\n"
        "assert result.checkpoint.is_file() and result.run_dir.is_dir()\n"
        "assert result.valid_metric == 'loss' and math.isfinite(result.best_valid_score)\n"
        "assert all(type(v) is float for v in result.test_result.values())\n"
        "print(sorted(result.test_result))\n"
    )
    assert "loss" in python(code, tiny_synthetic)


def test_run_raises_errors_that_can_be_caught():
    with pytest.raises(ConfigError, match="Did you mean 'learning_rate'"):
        talkingface.run("HyperLipsBase", "Synthetic", overrides={"learning_rat": 1})


def size_of(model) -> int:
    return sum(p.numel() for p in model.parameters())
