"""Reading weights of ours and of others: strictly, safely, and with messages that help."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn
from trainkit import SMALL_HYPERLIPS, changed, fit, snapshot, toy_config

import talkingface
from talkingface.components.models import build_model, load_model_weights, start_from
from talkingface.errors import WeightsError
from talkingface.model.weights import load_checkpoint
from talkingface.trainer.checkpoint import save_checkpoint
from talkingface.utils.hashes import sha256_of
from talkingface.utils.weights import load_strict, read_weights


@pytest.fixture(scope="module")
def model():
    return talkingface.create_model("HyperLipsBase", preset="tiny", overrides=SMALL_HYPERLIPS)


@pytest.fixture
def other_weights(model) -> dict[str, torch.Tensor]:
    """Weights that fit the generator and are not its own."""
    torch.manual_seed(5)
    return {
        key: torch.randn_like(value) if value.is_floating_point() else value + 1
        for key, value in model.network.state_dict().items()
    }


FORMS = {
    "bare state_dict": lambda state: state,
    "official checkpoint": lambda state: {
        "state_dict": state,
        "optimizer": None,
        "global_step": 169000,
        "global_epoch": 3,
    },
    "module. prefix": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "OrderedDict": OrderedDict,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_official_form_loads_all_tensors(model, other_weights, tmp_path, form):
    path = tmp_path / "hyperlipsbase_mead.pth"
    torch.save(FORMS[form](other_weights), path)
    report = talkingface.load_weights(model, path)
    assert report.matched == len(other_weights)
    assert changed(other_weights, model.network) == set()


def test_a_safetensors_file_loads(model, other_weights, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in other_weights.items()}, str(path))
    talkingface.load_weights(model, path)
    assert changed(other_weights, model.network) == set()


def test_a_file_of_an_old_pytorch_without_batch_counters_loads(model, other_weights):
    old = {k: v for k, v in other_weights.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(other_weights)
    assert talkingface.load_weights(model, old).matched == len(old)


def test_weights_of_another_size_name_both_shapes_and_change_nothing(model):
    wide = talkingface.create_model(
        "HyperLipsBase", preset="tiny", overrides={**SMALL_HYPERLIPS, "model_params.hyper_dim": 16}
    )
    before = snapshot(model.network)
    with pytest.raises(WeightsError, match="another shape") as error:
        talkingface.load_weights(model, wide.network.state_dict())
    assert "instead of" in str(error.value)
    assert changed(before, model.network) == set()


def test_a_missing_tensor_is_an_error_and_changes_nothing(model, other_weights):
    del other_weights["output_block.1.bias"]
    before = snapshot(model.network)
    with pytest.raises(WeightsError, match=r"1 of \d+ missing: output_block\.1"):
        talkingface.load_weights(model, other_weights)
    assert changed(before, model.network) == set()


def test_an_unexpected_tensor_is_an_error(model, other_weights):
    with pytest.raises(WeightsError, match=r"1 unexpected: up_conv\.2"):
        talkingface.load_weights(model, {**other_weights, "up_conv.2.weight": torch.zeros(3)})


def test_hundreds_of_wrong_names_become_a_short_message(model):
    wrong = {f"encoder.block{i % 3}.layer{i}.weight": torch.zeros(1) for i in range(300)}
    with pytest.raises(WeightsError, match="300 unexpected") as error:
        talkingface.load_weights(model, wrong)
    assert len(str(error.value)) < 1000


def test_optional_names_may_be_missing_or_in_excess():
    net = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    body = {f"body.{key}": torch.ones_like(v) for key, v in net["body"].state_dict().items()}
    extra = {**body, "head.old": torch.zeros(1)}
    report = load_strict(net, extra, source="x", network="n", optional=("head.",))
    assert (report.matched, report.dropped) == (2, ("head.old",))
    assert float(net["body"].weight.detach().sum()) == 4.0


class Harmless:
    """An object whose class a safe reader does not know."""


def test_a_file_with_pickled_objects_is_refused_until_its_hash_is_trusted(tmp_path):
    path = tmp_path / "official.pkl"
    torch.save({"state_dict": {"weight": torch.ones(2)}, "options": Harmless()}, path)
    with pytest.raises(WeightsError, match="could run code") as error:
        read_weights(path)
    assert f"--trust_checkpoint={sha256_of(path)}" in str(error.value)
    assert "test_weights.Harmless" in str(error.value)
    assert torch.equal(
        read_weights(path, trust=sha256_of(path))["state_dict"]["weight"], torch.ones(2)
    )


def test_a_wrong_hash_does_not_open_the_file(tmp_path):
    path = tmp_path / "evil.pth"
    target = tmp_path / "was_run"

    class Evil:
        def __reduce__(self):
            return Path.touch, (target,)

    torch.save({"state_dict": Evil()}, path)
    for trust in (None, "0" * 64):
        with pytest.raises(WeightsError, match="could run code"):
            read_weights(path, trust=trust)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"", "damaged or no PyTorch file"),
        (b"PK\x03\x04 cut off", "damaged or no PyTorch file"),
        (b"<html>Access denied</html>", "damaged or no PyTorch file"),
    ],
    ids=["LFS pointer", "empty", "cut off", "web page"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_weights_file_is_explained(tmp_path, content, message, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    if suffix == ".safetensors":
        message = message.replace("no PyTorch", "no safetensors")
    with pytest.raises(WeightsError, match=message):
        read_weights(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_is_refused(tmp_path):
    path = tmp_path / "list.pkl"
    path.write_bytes(pickle.dumps([Harmless()]))
    with pytest.raises(WeightsError, match="could run code"):
        read_weights(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="nothing.pth does not exist"):
        read_weights(tmp_path / "nothing.pth")


def test_a_file_without_tensors_is_refused(model, tmp_path):
    torch.save({"state_dict": {"step": 3}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no tensors for the network 'generator'"):
        talkingface.load_weights(model, tmp_path / "a.pth")


def test_official_weights_cannot_be_resumed(tmp_path):
    torch.save({"state_dict": {}, "global_step": 1}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no checkpoint of this toolkit"):
        load_checkpoint(tmp_path / "a.pth")


# -- checkpoints of ours ---------------------------------------------------------------------------


def test_a_checkpoint_gives_its_averaged_weights_to_evaluation(tmp_path):
    cfg = toy_config(epochs=2, optim__ema_decay=0.9)
    fit(cfg, tmp_path)
    state = load_checkpoint(tmp_path / "best.ckpt")
    model = build_model(cfg)
    load_model_weights(model, tmp_path / "best.ckpt")
    averaged = state["ema_state_dict"]["generator"]
    assert changed(averaged, model.generator) == set()
    assert not torch.equal(averaged["0.weight"], state["state_dict"]["generator.0.weight"])


def test_a_training_starts_from_the_weights_of_another_run(tmp_path, caplog):
    fit(toy_config(epochs=2, toy__adversarial=False), tmp_path)
    earlier = load_checkpoint(tmp_path / "best.ckpt")["state_dict"]
    model = build_model(toy_config())
    untrained = snapshot(model.discriminator)
    origin = model.origin
    start_from(model, tmp_path / "best.ckpt")
    assert torch.equal(model.generator[0].weight, earlier["generator.0.weight"])
    assert changed(untrained, model.discriminator) == set()  # the file has none
    assert model.origin == origin
    # An incomplete main network is an error, as is another size.
    del earlier["generator.0.weight"]
    content = {**load_checkpoint(tmp_path / "best.ckpt"), "state_dict": earlier}
    torch.save(content, tmp_path / "part.ckpt")
    with pytest.raises(WeightsError, match="^init: .*generator"):
        start_from(model, tmp_path / "part.ckpt")


def test_one_network_of_a_checkpoint_can_be_loaded_by_name(tmp_path):
    cfg = toy_config(max_steps=1)
    fit(cfg, tmp_path)
    model = build_model(cfg)
    report = talkingface.load_weights(model, tmp_path / "last.ckpt", network="discriminator")
    state = load_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    assert report.matched == 4
    assert torch.equal(model.discriminator[0].weight, state["discriminator.0.weight"])


def test_a_failed_write_keeps_the_older_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"epoch": 1})
    with pytest.raises(Exception, match="pickle|local object"):  # words of Python 3.13
        save_checkpoint(path, {"epoch": 2, "bad": lambda: None})
    assert load_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
