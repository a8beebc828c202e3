"""What the toolkit expects of a model.

A model holds networks and knows its losses; it opens no files, names no devices, steps nothing:
the trainer moves the batch, the quick start reads weights, the pipeline makes videos.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from talkingface.model.component import Component

if TYPE_CHECKING:
    from talkingface.config.config import Config


class AbstractTalkingFace(nn.Module):
    """Base class of all models.

    Class attributes:
        phases: losses that are stepped one after the other on each batch; a GAN has
            ``("discriminator", "generator")``.
        main_network: attribute name of the network that carries the official state_dict names.
        optional_keys: prefixes that an official file may lack or hold in excess.
        plateau: (loss name, low, high, advice): training warns once when the loss stays inside for
            long, e.g. a sync loss at ln 2.
        bgr: True when image channels are in OpenCV's order.
        batch_keys: keys that it reads from batches; the dataset's ``batch_spec`` must have them.
        clip_outputs: what :meth:`evaluate_clip` gives: name -> ``direction`` and ``unit``.
    """

    phases: ClassVar[tuple[str, ...]] = ("main",)
    main_network: ClassVar[str] = "generator"
    optional_keys: ClassVar[tuple[str, ...]] = ()
    plateau: ClassVar[tuple[str, float, float, str] | None] = None
    bgr: ClassVar[bool] = False
    batch_keys: ClassVar[tuple[str, ...]] = ()
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {}

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        # Attached by the component store; not in state_dict, nor in any optimizer.
        self.components: dict[str, Component] = {}
        # Of loaded weights: sources of the components that they were trained with, and whether
        # they are an official file.
        self.lineage: dict[str, dict[str, str]] = {}
        self.has_official_weights = False
        # Share of the run's steps that are done, for losses that grow; the trainer sets it.
        self.training_progress = 0.0

    # -- networks ---------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Trainable networks by attribute name; each gets an optimizer of its own."""
        return dict(self.named_children())

    @property
    def network(self) -> nn.Module:
        """The main network, with the official state_dict names."""
        return getattr(self, self.main_network)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the main network with the signature of the paper."""
        return self.network(*args, **kwargs)

    def active_phases(self) -> tuple[str, ...]:
        """Phases that this configuration uses; a GAN whose weight is 0 has no discriminator."""
        return self.phases

    def phase_networks(self, phase: str) -> tuple[str, ...]:
        """Names of the networks that step in a phase; default: those named like it, else all."""
        names = tuple(self.networks())
        return (phase,) if phase in names else names

    @classmethod
    def remap_state_dict(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of an official file -> names of the main network."""
        return dict(state)

    @classmethod
    def settings_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Keys of the configuration that an official file's names tell, e.g. a number of layers;
        asked where a joined model takes the file as a part."""
        return {}

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        """Settings with which a state_dict that does not fit would, as far as its names show."""
        return ""

    # -- components -------------------------------------------------------------------------------

    def attach_component(self, name: str, component: Component) -> None:
        """Take over a trained network that the config class declared."""
        self.components[name] = component

    def component(self, name: str) -> Any:
        """The network of an attached component, None when there is none."""
        return self.components[name].network if name in self.components else None

    def component_sources(self) -> dict[str, dict[str, str]]:
        """Path and SHA-256 of the attached components, for checkpoints."""
        return {name: part.source for name, part in self.components.items() if part.source}

    # -- training ---------------------------------------------------------------------------------

    def fit_statistics(self, data: Any) -> None:
        """Take figures of the training split before a new run starts, e.g. the units of targets.

        What is kept belongs into :meth:`other_parameter`: a resumed run does not call this.
        """

    def check_resume_compatible(self, data: Any) -> None:
        """Check, when a run is resumed, that the training split still gives what was learnt.

        Raises:
            TalkingFaceError: going on would mix two sets of units.
        """

    def forward_train(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Forward pass that all phases of a step share."""
        return {}

    def calculate_loss(
        self,
        interaction: Mapping[str, Any],
        valid: bool = False,
        phase: str = "main",
        shared: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one batch: ``loss`` (weighted total) and its named parts, 0-dim tensors."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def evaluate_clip(self, clip: Any, mismatched: Any) -> dict[str, dict[str, float]]:
        """Measures of one whole test clip, for models that generate no video.

        Args:
            clip: of the dataset's ``whole_clips()``.
            mismatched: another clip, whose sound serves as the wrong one.

        Returns:
            Row (the model's name, ``shuffled audio``, ``mean motion``, ``real``) -> output ->
            value; outputs are declared in ``clip_outputs``.
        """
        raise NotImplementedError(f"{type(self).__name__} measures no clips")

    def generate_motions(self, clip: Any, mismatched: Any) -> dict[str, dict[str, Any]]:
        """Motions for a whole test clip, for models of motion that are evaluated as distributions.

        Args:
            clip, mismatched: as in :meth:`evaluate_clip`.

        Returns:
            Part of the motion (``face``, ``pose``...) -> row -> (N,T,C) float array in the units of
            the data, N samples of one sound. There is a row of the model's name and one called
            ``real``, with NaN where a frame does not count; a part without it is only kept in the
            files. An empty result: the model has none, and :meth:`evaluate_clip` is asked instead.
        """
        return {}

    def evaluate_motions(
        self, clip: Any, motions: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, float]]:
        """As :meth:`evaluate_clip`, of what :meth:`generate_motions` gave."""
        return {row: {} for rows in motions.values() for row in rows}

    def check_test_data(self, data: Any) -> None:
        """Refuse test data whose values mean something else than those the model was trained on.

        Raises:
            TalkingFaceError: numbers would look valid and say nothing.
        """

    def result_notes(self) -> dict[str, str]:
        """What a reader of test results must know, e.g. that real key poses were followed."""
        return {}

    @torch.no_grad()
    def predict(self, interaction: Mapping[str, Any]) -> dict[str, Tensor]:
        """Outputs for one batch, without files and without gradients."""
        raise NotImplementedError(f"{type(self).__name__} defines no prediction")

    def visualize(self, interaction: Mapping[str, Any]) -> dict[str, Tensor]:
        """Pictures for the logger: ``(B,3,H,W)`` or videos ``(B,T,3,H,W)``, values 0..1."""
        return {}

    def after_validation(self, losses: Mapping[str, float]) -> None:
        """Hook for loss schedules that depend on the validation."""

    def other_parameter(self) -> dict[str, Any]:
        """Further state for the checkpoint: tensors or plain Python values only.

        Plain values also stand in the ``weights.json`` of exported weights.
        """
        return {}

    def load_other_parameter(self, values: Mapping[str, Any]) -> None:
        """Restore what :meth:`other_parameter` gave."""

    def count_parameters(self) -> dict[str, int]:
        """Trainable numbers per network."""
        return {
            name: sum(p.numel() for p in net.parameters()) for name, net in self.networks().items()
        }
