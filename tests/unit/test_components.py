"""Components: declared by config classes without building a network, found by one store."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from torch import nn

from talkingface.components.models import _MOVED, build_model
from talkingface.components.store import ComponentStore
from talkingface.config.config import load_config
from talkingface.errors import ConfigError, WeightsError
from talkingface.model.component import Component, component_sources
from talkingface.registry import Registry

REGISTRY = Registry()
# Settings under which a model declares all components that it can have.
ALL = {
    "HyperLipsBase": {"loss.perceptual_wt": 1.0, "data.syncnet_T": 5},
    "HyperLipsHR": {"loss.perceptual_wt": 1.0, "loss.lip_lpips_wt": 1.0},
    "MODA": {"audio_encoder.kind": "apc"},
    "HeadGAN": {"infer.mode": "audio"},
    "A2P": {"weights.renderer": "auto"},
}
EXPECTED = {
    "HyperLipsBase": {"sync_expert", "vgg"},
    "HyperLipsHR": {"base", "vgg", "lpips"},
    "Audio2Feature": {"apc"},
    "Audio2Headpose": {"apc"},
    "Feature2Face": {"vgg"},
    "live_speech_portraits": {"audio2feature", "audio2headpose", "feature2face", "apc"},
    "MODA": {"apc"},
    "MODARenderer": {"vgg"},
    "MODAPortrait": {"moda", "faco", "renderer"},
    "HeadGAN": {"vgg", "audio2exp"},
    "A2PFace": {"lips"},
    "A2PGuide": {"vq"},
    "A2P": {"face", "pose", "guide", "vq", "renderer"},
}


def config(model: str):
    dataset = "SyntheticDyad" if model.startswith("A2P") else "Synthetic"
    return load_config(model, dataset, preset="tiny", overrides=ALL.get(model, {}))


@pytest.mark.parametrize("model", REGISTRY.names("model"))
def test_what_a_model_declares_can_be_had(model):
    cfg = config(model)
    store = ComponentStore(cfg)
    assert set(store.specs) == EXPECTED.get(model, set())
    for name, spec in store.specs.items():
        assert name in cfg.weights.model_dump() and spec.purpose
        assert spec.model is None or spec.model in REGISTRY.names("model")
        # An official file needs a network; without either only a run can supply it.
        if spec.files and not spec.whole_model:
            module, _, function = spec.network.partition(":")
            assert callable(getattr(importlib.import_module(module), function))
        assert spec.model or spec.files
        keys = cfg.to_dict()
        for key in spec.same_settings:
            assert key.split(".")[0] in keys


def test_components_are_declared_without_loading_torch():
    code = (
        "import sys\n"
        "from talkingface.config.config import load_config\n"
        "cfg = load_config('HyperLipsHR', 'Synthetic')\n"
        "assert 'base' in cfg.schema.components(cfg)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=60)


def test_a_missing_component_says_how_to_get_it(root):
    store = ComponentStore(config("HyperLipsHR"))
    assert store.find("base") is None and store.to_train() == ["base"]
    with pytest.raises(WeightsError) as caught:
        store.path("base")
    text = str(caught.value)
    assert "--model=HyperLipsBase --dataset=Synthetic" in text
    assert "hyperlipsbase_mead.pth" in text and "set weights.base" in text


def test_only_finished_runs_are_taken_and_losses_prefer_official_files(root):
    store = ComponentStore(config("HyperLipsBase"))
    run = root / "saved/SyncExpert/Synthetic/run1/checkpoints/best.ckpt"
    run.parent.mkdir(parents=True)
    run.write_bytes(b"trained")
    assert store.find("sync_expert") is None
    (run.parents[1] / "summary.json").write_text("{}")
    assert store.find("sync_expert") == run
    official = root / "checkpoints/pretrain_sync_expert.pth"
    official.parent.mkdir(exist_ok=True)
    official.write_bytes(b"official")
    assert store.find("sync_expert") == official


def test_a_component_is_in_evaluation_mode_and_outside_the_model():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    model = build_model(config("SyncNet"))
    before = len(list(model.parameters())), len(model.state_dict())
    model.components["judge"] = Component(network, {"path": "a", "sha256": "b"})
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert (len(list(model.parameters())), len(model.state_dict())) == before
    assert component_sources(model.components) == {"judge": {"path": "a", "sha256": "b"}}


@pytest.mark.parametrize("former", _MOVED)
def test_a_model_with_a_method_under_its_former_name_is_told(former, monkeypatch):
    cfg = config("SyncNet")
    model_cls = cfg.registry.resolve(cfg.model_entry, "model")
    monkeypatch.setattr(model_cls, former, lambda self: None, raising=False)
    text = f"{model_cls.__name__}.{former} is not used any more; use {_MOVED[former]}"
    with pytest.raises(ConfigError, match=re.escape(text)):
        build_model(cfg)
