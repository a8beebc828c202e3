"""What the tests of training share: the toy GAN, small HyperLips settings, building trainers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from talkingface.components.models import build_model
from talkingface.config.config import Config, load_config
from talkingface.data.dataset.base import build_loader
from talkingface.trainer.runtime import Runtime
from talkingface.trainer.trainer import Trainer
from talkingface.utils.seeding import seed_everything

# The networks are so small that threads would only wait for each other.
torch.set_num_threads(1)

TOY_PLUGIN = Path(__file__).parent / "toy_plugin"

# The smallest HyperLipsBase that still has every layer.
SMALL_HYPERLIPS = {
    "device": "cpu",
    "num_workers": 0,
    "show_progress": False,
    "batch_size": 2,
    "eval_batch_size": 2,
    "data.windows_per_clip": 4,
    "init": "none",
    "eval_step": 1,
    "learning_rate": 2e-3,
    "optim.warmup_steps": 0,
    "data.syncnet_T": 5,
    "data.reference": "any",
    "data.fine": 1,
    "loss.disc_wt": 0.2,
    "loss.mouth_wt": 0.0,
    "loss.gradient_wt": 0.0,
    "loss.spectrum_wt": 0.0,
    "infer.mask": "landmarks",
    "model_params.image_size": 32,
    "model_params.width": 0.25,
    "model_params.aspp_channels": 16,
    "model_params.hyper_dim": 8,
    "model_params.decoder_channels": [16, 16, 16, 16],
    "model_params.disc_channels": 4,
}


def toy_config(**settings: Any) -> Config:
    """Settings of the toy GAN; ``__`` in a name stands for a dot: ``optim__accumulate=2``."""
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    return load_config(
        "ToyGan", "Synthetic", overrides={"plugin_path": str(TOY_PLUGIN), **overrides}
    )


def hyperlips_config(project: Path | None = None, **settings: Any) -> Config:
    """HyperLipsBase of the smallest size on the prepared data of ``tiny_synthetic``."""
    overrides = dict(SMALL_HYPERLIPS)
    if project is not None:
        overrides["root"] = str(project / "dataset" / "Synthetic-tiny")
    overrides.update({key.replace("__", "."): value for key, value in settings.items()})
    return load_config("HyperLipsBase", "Synthetic", preset="tiny", overrides=overrides)


def trainer_of(
    cfg: Config, folder: Path | None = None, kind: type[Trainer] = Trainer, **options: Any
) -> tuple[Trainer, Any, Any]:
    """A trainer and the loaders of both splits, built as a run does."""
    seed_everything(cfg.seed, cfg.reproducibility)
    dataset = cfg.registry.resolve(cfg.model_entry, "dataset")
    loaders = [
        build_loader(dataset(cfg, split), cfg, train=split == "train") for split in ("train", "val")
    ]
    return kind(cfg, build_model(cfg), Runtime(cfg), folder, **options), *loaders


def fit(cfg: Config, folder: Path | None = None, *, resume: Path | None = None, **options: Any):
    """Train and return the trainer; its model then has bare networks again."""
    trainer, train, valid = trainer_of(cfg, folder, **options)
    if resume is not None:
        trainer.resume_checkpoint(resume)
    trainer.result = trainer.fit(train, valid if cfg.eval_step else None)
    return trainer


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def changed(before: Mapping[str, Tensor], network: nn.Module) -> set[str]:
    """Names of tensors that are no longer bit-identical."""
    after = network.state_dict()
    assert before.keys() == after.keys()
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Places at which two nested states differ; tensors must be bit-identical."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
        return [] if same else [path]
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        found = [f"{path}.{key}: only on one side" for key in first.keys() ^ second.keys()]
        for key in first.keys() & second.keys():
            found += differences(first[key], second[key], f"{path}.{key}")
        return found
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        if len(first) != len(second):
            return [f"{path}: {len(first)} and {len(second)} items"]
        pairs = zip(first, second, strict=True)
        return [d for i, (a, b) in enumerate(pairs) for d in differences(a, b, f"{path}[{i}]")]
    return [] if first == second else [f"{path}: {first!r} and {second!r}"]
