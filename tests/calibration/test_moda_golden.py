"""MODA against the reference rebuild: names, sizes and outputs of every network."""

from __future__ import annotations

import pytest
import torch

from talkingface.model.audio_driven_talkingface.moda import moda_networks as nets
from talkingface.model.audio_driven_talkingface.moda.modarenderer import tpe

LEGACY = {"legacy_pe": True, "legacy_mask": True}
_NETWORKS = {
    "modanet": lambda: nets.MODANet(subject_norm="batch"),
    "modanet_legacy": lambda: nets.MODANet(subject_norm="batch", **LEGACY),
    "faco": nets.FaCoNet,
    "faco_D": nets.FaCoDiscriminator,
    "modanet_full": lambda: nets.MODANet(subject_norm="batch", audio_encoder=nets.wav2vec2(None)),
}
_PARAMETERS = {
    "modanet": 2_346_473,
    "modanet_legacy": 2_346_473,
    "faco": 1_900_442,
    "faco_D": 792_705,
    "modanet_full": 96_718_185,
}


@pytest.fixture(scope="module")
def reference(golden):
    return golden.load("moda")


def network(reference, name: str) -> torch.nn.Module:
    net = _NETWORKS[name]().eval()
    net.load_state_dict(reference.state_dict(name))
    return net


def check(reference, case: str, outputs) -> None:
    wanted = reference.cases[case]["outputs"]
    for result in reference.check(case, {key: outputs[key] for key in wanted}):
        assert result, result


@pytest.mark.parametrize("name", _PARAMETERS)
def test_names_and_sizes(reference, name):
    if name == "modanet_full":
        pytest.importorskip("transformers")
    net = _NETWORKS[name]()
    assert sum(p.numel() for p in net.parameters()) == _PARAMETERS[name]
    if name != "modanet_full":  # wav2vec2 has another name for two of its tensors by now
        wanted = {key: tuple(v.shape) for key, v in reference.state_dict(name).items()}
        assert {key: tuple(v.shape) for key, v in net.state_dict().items()} == wanted


@torch.no_grad()
@pytest.mark.parametrize(
    "case", ["modanet", "modanet_T1", "modanet_long", "modanet_legacy", "modanet_legacy_pair"]
)
def test_mapping(reference, case):
    net = network(reference, "modanet_legacy" if "legacy" in case else "modanet")
    values = reference.inputs(case)
    check(reference, case, net(values["feat"], values["subject"]))


@pytest.mark.slow
@torch.no_grad()
def test_mapping_with_its_own_sound_encoder(reference):
    pytest.importorskip("transformers")
    net = network(reference, "modanet_full")
    values = reference.inputs("modanet_full")
    heard = nets.wav2vec2_at(net.audio_encoder, values["wave"], 50)
    check(reference, "modanet_full", {"feat": heard, **net(heard, values["subject"])})


@torch.no_grad()
def test_composer_and_its_discriminator(reference):
    check(reference, "faco", {"mesh": network(reference, "faco")(**reference.inputs("faco"))})
    score = network(reference, "faco_D")(**reference.inputs("faco_D"))
    check(reference, "faco_D", {"score": score})


def test_temporal_position_code(reference):
    frames = reference.input_np("tpe", "t") if hasattr(reference, "input_np") else [0, 1, 37, 250]
    made = tpe(torch.as_tensor(frames, dtype=torch.float32))
    check(reference, "tpe", {"planes": made})
