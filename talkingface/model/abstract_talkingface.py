"""Base class of models.

A model holds networks and computes losses. It opens no files and moves nothing between devices:
the trainer moves batches, the component store reads weights, pipelines generate videos.
:mod:`talkingface.model.abilities` lists optional methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from talkingface.model.component import Component, WeightsOrigin
from talkingface.model.statistics import TrainingStatistics

if TYPE_CHECKING:
    from talkingface.config.config import Config

Batch = Mapping[str, Any]  # a collated batch of the dataset, by key
Tensors = dict[str, Tensor]


class AbstractTalkingFace(nn.Module):
    """Base class of all models. A subclass builds its networks in ``__init__``.

    Class attributes:
        phases: optimisation phases, run one after the other on each batch; a GAN has
            ``("discriminator", "generator")``. A phase trains the networks with its name and those
            whose names end with ``_<phase>``; a phase without such networks trains all. A model
            whose settings leave a phase out sets ``phases`` of the instance in ``__init__``.
        main_network: attribute name of the network that has the official state_dict names.
        batch_keys: batch keys that the model reads; the dataset's ``batch_spec`` must have them.

    Attributes:
        cfg: the configuration of the run.
        components: attached trained networks, by the names that the config class declares. They
            are not submodules: neither in the state_dict nor in an optimizer.
        origin: source of the loaded weights.
        statistics: values of the training split that belong to the weights; None without any.
    """

    phases: tuple[str, ...] = ("main",)
    main_network: ClassVar[str] = "generator"
    batch_keys: ClassVar[tuple[str, ...]] = ()

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.components: dict[str, Component] = {}
        self.origin = WeightsOrigin()
        self.statistics: TrainingStatistics | None = None

    def networks(self) -> dict[str, nn.Module]:
        """Trainable networks by attribute name; each has its own optimizer."""
        return dict(self.named_children())

    @property
    def network(self) -> nn.Module:
        """The main network."""
        return getattr(self, self.main_network)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the main network."""
        return self.network(*args, **kwargs)

    def forward_train(self, batch: Batch) -> Tensors:
        """The forward pass that all phases of a step share."""
        return {}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        """Losses of one batch; in validation the model is in evaluation mode.

        Args:
            shared: what :meth:`forward_train` returned for the batch.

        Returns:
            ``loss``, the weighted total, and its named parts, all 0-dim tensors.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss")


def networks_of_phase(model: AbstractTalkingFace, phase: str) -> tuple[str, ...]:
    """Names of the networks that a phase trains."""
    names = tuple(model.networks())
    matching = tuple(name for name in names if name == phase or name.endswith(f"_{phase}"))
    return matching or names
