"""Build the preparation, the datasets and the pipeline of a configuration, with components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from talkingface.components.models import build_model, load_model_weights
from talkingface.components.store import ComponentStore
from talkingface.config.config import load_config
from talkingface.data.dataprocess.base import CompletesClips
from talkingface.trainer.runtime import choose_device
from talkingface.utils.locks import file_lock

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataprocess.base import DataProcess
    from talkingface.data.dataset.base import TalkingFaceDataset
    from talkingface.model.abstract_talkingface import AbstractTalkingFace
    from talkingface.pipeline.base import Pipeline


class PipelineStore(ComponentStore):
    """Components, which can also be loaded as pipelines."""

    def pipeline(self, name: str, **infer: Any) -> Pipeline:
        """The pipeline of a component: ``infer``, else its defaults, and ``face`` of this run.

        Raises:
            WeightsError, ConfigError: the component is missing, belongs to another model, or was
                trained with settings that do not agree with this run.
        """
        cfg, checkpoint = self.cfg, self.path(name)
        stored = self.settings(name, checkpoint)
        if stored is None:
            stored = {"model": self.specs[name].model, "dataset": cfg.dataset, "fps": cfg.fps}
        plain = load_config(stored["model"], stored["dataset"]).infer.model_dump()
        own = load_config(
            stored["model"], stored["dataset"], base={**stored, "preset": None},
            overrides={"infer": plain | infer, "face": cfg.face.model_dump(),
                       "precision": cfg.precision, "resume": False},
        )  # fmt: skip
        model = build_model(own)
        load_model_weights(model, checkpoint, cfg.trust_checkpoint)
        pipeline = build_pipeline(own, model.eval(), choose_device(cfg.device))
        assert pipeline is not None
        return pipeline


def build_pipeline(
    cfg: Config, model: AbstractTalkingFace, device: torch.device
) -> Pipeline | None:
    """The pipeline of a model; None for models without one."""
    if not cfg.model_entry.target("pipeline"):
        return None
    ComponentStore(cfg).attach_for_inference(model)
    return cfg.registry.resolve(cfg.model_entry, "pipeline")(cfg, model, device)


def build_process(cfg: Config) -> DataProcess:
    """The preparation of a configuration's model."""
    process_cls = cfg.registry.resolve(cfg.model_entry, "dataprocess")
    return process_cls(cfg, **_components(process_cls, cfg))


def build_dataset(cfg: Config, split: str, role: str = "dataset") -> TalkingFaceDataset:
    """One split of a configuration's data.

    Args:
        role: ``dataset`` or ``test_dataset``.

    Raises:
        StageError: the split has no usable item.
    """
    if cfg.model_entry.target("dataprocess"):
        process = build_process(cfg)
        if isinstance(process, CompletesClips):
            with file_lock(process.prepared.lock_path):
                process.complete(split)
    dataset_cls = cfg.registry.resolve(cfg.model_entry, role)
    return dataset_cls(cfg, split, **_components(dataset_cls, cfg))


def _components(kind: type, cfg: Config) -> dict[str, Any]:
    """Constructor argument of classes with ``uses_components``."""
    return {"components": PipelineStore(cfg)} if getattr(kind, "uses_components", False) else {}
