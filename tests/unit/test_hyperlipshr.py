"""HyperLipsHR: losses, what a step changes, and what stays frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from trainkit import changed, snapshot

from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.errors import WeightsError
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlipshr_networks import HRDecoder
from talkingface.model.component import Component
from talkingface.model.losses.adversarial import relativistic
from talkingface.model.weights import load_into

SMALL = {"model_params.channels": 8, "model_params.disc_channels": 4, "device": "cpu"}


def model(**settings):
    overrides = {**SMALL, **{k.replace("__", "."): v for k, v in settings.items()}}
    torch.manual_seed(0)
    return build_model(load_config("HyperLipsHR", "Synthetic", overrides=overrides))


def batch(size: int = 256, frames: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "hyper_img": torch.rand(2, 3, frames, 128, 128),
        "hyper_sketch": (torch.rand(2, 3, frames, 128, 128) > 0.8).float(),
        "gt_img": torch.rand(2, 3, frames, size, size),
        "coords": torch.tensor([[[150, 200, 90, 170]] * frames] * 2),
    }


@pytest.mark.parametrize("size", [128, 256, 512])
def test_the_output_has_the_wanted_size_and_the_input_always_128(size):
    made = model(model_params__image_size=size).eval().forward_train(batch(size, 1))["generated"]
    assert made.shape == (2, 3, 1, size, size)
    assert 0 <= made.min() and made.max() <= 1


def test_another_factor_is_refused():
    with pytest.raises(ValueError, match="1, 2 or 4"):
        HRDecoder(3)


def test_the_relativistic_loss_is_that_of_the_paper():
    real, fake = torch.randn(5, 1), torch.randn(5, 1)
    bce = nn.BCEWithLogitsLoss()
    expected = (
        bce(real - fake.mean(), torch.ones(5, 1)) + bce(fake - real.mean(), torch.zeros(5, 1))
    ) / 2
    torch.testing.assert_close(relativistic(real, fake), expected)
    equal = torch.zeros(3, 1)
    assert relativistic(equal, equal).item() == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize(("own", "other"), [(128, 256), (256, 512), (512, 128)])
def test_weights_of_another_output_size_are_refused_with_the_key_to_set(own, other):
    official = {f"module.{k}": v for k, v in HRDecoder(other // 128).state_dict().items()}
    hr = model(model_params__image_size=own, model_params__channels=64)
    before = snapshot(hr)
    with pytest.raises(WeightsError, match=f"model_params.image_size={other}"):
        load_into(hr, {"state_dict": official, "global_step": 3})
    assert not changed(before, hr)


@pytest.mark.parametrize("size", [128, 256, 512])
def test_official_files_load_by_name_with_and_without_module(size):
    state = HRDecoder(size // 128).state_dict()
    for prefix in ("", "module."):
        hr = model(model_params__image_size=size, model_params__channels=64)
        report = load_into(hr, {"state_dict": {prefix + k: v for k, v in state.items()}})
        assert not changed(state, hr.generator) and str(len(state)) in str(report)


@pytest.mark.parametrize("size", [128, 256, 512])
def test_without_normalisation_the_untrained_decoder_is_a_plain_enlargement(size):
    hr = model(model_params__image_size=size, model_params__norm="none", model_params__channels=24)
    ramp = torch.linspace(0.1, 0.9, 128)
    picture = torch.stack(
        [ramp.expand(128, 128), ramp[:, None].expand(128, 128), 1 - ramp.expand(128, 128)]
    )
    stacked = torch.cat([picture, torch.zeros(3, 128, 128)])[None]
    expected = functional.interpolate(picture[None], size=(size, size), mode="bilinear")
    with torch.no_grad():
        trained, judged = hr.train().generator(stacked), hr.eval().generator(stacked)
    assert (trained - expected).abs().mean() < 0.02
    torch.testing.assert_close(trained, judged)  # a batch never changes a picture
    assert set(hr.generator.state_dict()) == set(HRDecoder(size // 128, channels=24).state_dict())


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_a_step_of_a_phase_changes_its_own_network_only(phase):
    hr, data = model(), batch()
    before = {name: snapshot(net) for name, net in hr.networks().items()}
    optimizer = torch.optim.Adam(hr.networks()[phase].parameters(), lr=1e-3)
    losses_of(hr, data, phase)["loss"].backward()
    optimizer.step()
    for name, net in hr.networks().items():
        # A relativistic loss sees differences of scores only: a common offset has no gradient.
        parameters = {key for key, _ in net.named_parameters() if key.endswith("weight")}
        moved = set(changed(before[name], net)) & parameters
        assert (moved == parameters) if name == phase else not moved


def test_components_are_no_part_of_the_model_and_keep_their_buffers():
    hr = model()
    helper = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    hr.components["base"] = Component(helper.train())
    before = snapshot(helper)
    hr.train()
    losses_of(hr, batch(), "generator")["loss"].backward()
    assert not helper.training and not changed(before, helper)
    assert all(not p.requires_grad for p in helper.parameters())
    assert {key.split(".")[0] for key in hr.state_dict()} == {"generator", "discriminator"}
    assert "base" not in hr.networks()


def test_losses_around_the_lips_look_at_the_lips_only():
    hr, data = model(loss__disc_wt=0.0), batch()
    shared = {"generated": data["gt_img"].clone()}
    shared["generated"][..., :100, :] += 0.5  # above the lips
    losses = hr.calculate_loss(data, "generator", shared)
    assert losses["lip_l1"].item() == 0 and losses["l1"].item() > 0.1


def test_rectangles_at_the_border_are_let_inwards():
    hr, data = model(loss__disc_wt=0.0), batch()
    data["coords"][:] = torch.tensor([250, 256, 0, 3])
    assert torch.isfinite(losses_of(hr, data, "generator")["lip_l1"])


def test_a_discriminator_that_is_not_wanted_is_not_built():
    hr = model(loss__disc_wt=0.0)
    assert set(hr.networks()) == {"generator"} and hr.phases == ("generator",)


def losses_of(model, batch, phase="main"):
    return model.calculate_loss(batch, phase, model.forward_train(batch))
