"""Promises that every registered model keeps; a new model is tested as soon as its YAML exists."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from conftest import dataset_for
from torch import Tensor
from torch.utils.data import default_collate
from trainkit import SMALL_HYPERLIPS, changed, snapshot

import talkingface
from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.model.abilities import Initializes
from talkingface.model.abstract_talkingface import networks_of_phase
from talkingface.model.component import Component
from talkingface.model.weights import extra_state, load_extra_state
from talkingface.pipeline.build import build_dataset, build_process
from talkingface.registry import get_registry

# Smaller than the tiny presets, so that all of this takes seconds; other models use theirs.
SMALLER = {
    "HyperLipsBase": SMALL_HYPERLIPS,
    "SyncExpert": {"batch_size": 4, "model_params.width": 0.125, "num_workers": 0},
}


# Layers that the official networks have although nothing uses their output.
DEAD = {
    "audio2headpose": re.compile(r"WaveNet\.residual_blocks\.(3|13)\.residual_conv\."),
    "codec": re.compile(r"decoder\.project_mean_shape\."),
    "denoiser": re.compile(r"lip_model\."),  # frozen
}


class Case:
    """A model with one fixed training batch of its own dataset."""

    def __init__(self, name: str, project, **more) -> None:
        overrides = {
            "device": "cpu",
            "process_workers": 1,
            "root": str(project / "dataset" / f"{dataset_for(name)}-tiny"),
            **SMALLER.get(name, {}),
            **more,
        }
        self.cfg = load_config(name, dataset_for(name), preset="tiny", overrides=overrides)
        if self.cfg.dataset_entry.target("source") and name.startswith("A2P"):
            source = self.cfg.registry.resolve(self.cfg.dataset_entry, "source")
            source.from_config(self.cfg).ensure(show_progress=False)
        torch.manual_seed(0)
        self.initial = self.build()
        prepare_clips(build_process(self.cfg), show_progress=False)
        self.data = build_dataset(self.cfg, "train")
        if self.initial.statistics is not None:
            self.initial.statistics.fit(self.data)
        if isinstance(self.initial, Initializes):
            self.initial.initialize(self.data)
        items = [self.data[i % len(self.data)] for i in range(max(self.cfg.batch_size, 2))]
        self.batch = default_collate(items)

    def build(self):
        """A new model, with untrained components where it cannot do without."""
        model = build_model(self.cfg)
        if self.cfg.model == "A2PGuide":
            spec = model.cfg.schema.components(model.cfg)["vq"]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = spec.build()
                network.quantizer.start(torch.randn(64, self.cfg.vq.width))
            model.components["vq"] = Component(network)
        return model

    @property
    def model(self):
        """A fresh copy in training mode."""
        return copy.deepcopy(self.initial).train()

    def losses(self, model, batch=None) -> dict[str, dict[str, Tensor]]:
        batch = batch or self.batch
        torch.manual_seed(1)  # noise of losses that draw some
        shared = model.forward_train(batch)
        return {p: model.calculate_loss(batch, p, shared) for p in model.phases}


@torch.no_grad()
def outputs_of(model, batch) -> dict[str, Tensor]:
    """What all losses share, without the scalars among it."""
    return {key: value for key, value in model.forward_train(batch).items() if value.ndim}


# Models without a dataset class train nothing of their own.
TRAINED = [
    name
    for name in talkingface.list_models()
    if get_registry().entry("model", name).target("dataset")
]


@pytest.fixture(scope="module", params=TRAINED)
def case(request: pytest.FixtureRequest, tiny_synthetic, tiny_base, tiny_apc) -> Case:
    more = {"weights.base": str(tiny_base)} if request.param == "HyperLipsHR" else {}
    if request.param in ("Audio2Feature", "Audio2Headpose"):
        more = {"weights.apc": str(tiny_apc)}
    return Case(request.param, tiny_synthetic, **more)


def test_the_batch_is_what_the_dataset_promises(case):
    for key, promise in type(case.data).batch_spec.items():
        value = case.batch[key]
        words = promise.split(";")[0].split()
        kind = next(i for i, word in enumerate(words) if word.startswith(("float", "uint", "int")))
        assert str(value.dtype) == f"torch.{words[kind].rstrip(',')}", key
        assert value.ndim == kind, f"{key}: {promise} but {tuple(value.shape)}"
        for size, word in zip(value.shape, words[:kind], strict=True):
            assert not word.isdigit() or size == int(word), f"{key}: {promise}"
        if words[-1].startswith("["):
            low, high = (float(x) for x in words[-1].strip("[]").split(","))
            assert low <= value.min() and value.max() <= high, key


def test_every_loss_is_a_finite_scalar_and_has_a_total(case):
    for phase, losses in case.losses(case.model).items():
        assert "loss" in losses, phase
        for key, value in losses.items():
            assert value.ndim == 0 and torch.isfinite(value), f"{phase}: {key}"


def test_some_steps_lower_the_loss_on_a_fixed_batch(case):
    model = case.model
    phase = model.phases[-1]
    network = model.networks()[networks_of_phase(model, phase)[0]]
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    values = []
    for _ in range(8):
        loss = case.losses(model)[phase]["loss"]
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < values[0], values


def test_a_gradient_reaches_every_parameter(case):
    model = case.model
    for phase, losses in case.losses(model).items():
        model.zero_grad()
        losses["loss"].backward(retain_graph=True)
        for name in networks_of_phase(model, phase):
            without = [k for k, p in model.networks()[name].named_parameters() if p.grad is None]
            without = [k for k in without if not DEAD.get(name, re.compile("$x")).match(k)]
            assert without == [], f"{phase}, {name}: {without[:5]}"


def test_a_saved_state_loads_into_a_fresh_model_and_gives_equal_outputs(case):
    first, second = case.model.eval(), case.build().eval()
    assert changed(snapshot(first), second)
    second.load_state_dict(first.state_dict(), strict=True)
    load_extra_state(second, extra_state(first))
    outputs = [outputs_of(model, case.batch) for model in (first, second)]
    for key in outputs[0]:
        assert torch.equal(outputs[0][key], outputs[1][key])


def test_outputs_have_one_entry_per_item(case):
    for key, value in outputs_of(case.model.eval(), case.batch).items():
        assert len(value) == max(case.cfg.batch_size, 2), key
        assert torch.isfinite(value).all()


def test_outputs_do_not_depend_on_the_rest_of_the_batch(case):
    model = case.model
    with torch.no_grad():  # let BatchNorm see the data, as after a training
        for _ in range(20):
            case.losses(model)
    model.eval()
    whole = outputs_of(model, case.batch)
    single = {k: v[:1] for k, v in case.batch.items()}
    for key, value in outputs_of(model, single).items():
        torch.testing.assert_close(value, whole[key][:1], rtol=1e-4, atol=1e-4)


def test_bf16_autocast_gives_losses_near_those_of_float32(case):
    model = case.model
    exact = case.losses(model)
    with torch.autocast("cpu", torch.bfloat16):
        rough = case.losses(case.model)
    for phase, losses in rough.items():
        value, expected = losses["loss"].item(), exact[phase]["loss"].item()
        assert value == pytest.approx(expected, rel=0.1, abs=0.05), phase


def test_the_model_holds_only_its_networks(case):
    names = set(case.initial.networks())
    assert {key.split(".")[0] for key in case.initial.state_dict()} == names
    assert case.initial.main_network in names
    model = case.initial
    assert {n for p in model.phases for n in networks_of_phase(model, p)} == names


def test_building_reads_no_random_file_and_moves_nothing_to_a_gpu(case):
    assert {p.device.type for p in case.initial.parameters()} == {"cpu"}


def test_hyperlips_masks_the_lower_half_and_generates_the_size_of_its_input(tiny_synthetic):
    case = Case("HyperLipsBase", tiny_synthetic)
    made = outputs_of(case.model.eval(), case.batch)["generated"]
    assert made.shape == case.batch["gt"].shape
    assert 0 <= made.min() and made.max() <= 1
