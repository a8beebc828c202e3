"""The base of configuration sections, types of values, and the section ``optim``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A group of keys; an unknown key is an error. ``retired`` says what became of former keys."""

    retired: ClassVar[dict[str, str]] = {}
    model_config = ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _comma_list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


NameList = Annotated[list[str], BeforeValidator(_comma_list)]
PathList = Annotated[list[str], BeforeValidator(_as_list)]
Learner = Literal["adam", "adamw", "sgd", "rmsprop"]
Schedule = Literal["none", "cosine", "linear", "step", "milestones", "plateau", "epochs"]
OrNone = Annotated[str | None, BeforeValidator(lambda text: None if text == "none" else text)]
AutoInt = Literal["auto"] | Annotated[int, Field(ge=0)]


class OptimGroup(Section):
    """Settings of one network's optimizer; null keeps the run-wide value."""

    learner: Learner | None = Field(None, description="Optimizer.")
    learning_rate: float | None = Field(None, gt=0, description="Step size.")
    weight_decay: float | None = Field(None, ge=0, description="L2 penalty.")
    betas: tuple[float, float] | None = Field(None, description="Adam's two decay rates.")


class PhaseOptions(Section):
    """When and how one phase (e.g. the discriminator's) steps."""

    every: int = Field(1, ge=1, description="This phase runs on every n-th batch.")
    start_step: int = Field(0, ge=0, description="First global step at which the phase runs.")
    clip_grad: float | None = Field(None, gt=0, description="Gradient norm limit; null: run-wide.")


class OptimSection(Section):
    """How networks are optimised."""

    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's two decay rates.")
    scheduler: Schedule = Field(
        "none",
        description="Learning-rate schedule. cosine and linear fall to zero at the end of the run; "
        "milestones decays at given steps; plateau watches valid_metric; epochs stays for "
        "constant_epochs and then falls by equal steps, one per epoch.",
    )
    constant_epochs: int = Field(0, ge=0, description="scheduler=epochs: epochs at the full rate.")
    zero_last: bool = Field(
        False,
        description="scheduler=epochs: the last epoch has rate 0, as in HeadGAN's official code.",
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up from zero.")
    step_size: int = Field(10, ge=1, description="scheduler=step: epochs between two decays.")
    milestones: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list, description="scheduler=milestones: optimizer steps of the decays."
    )
    gamma: float = Field(
        0.5, gt=0, le=1, description="scheduler=step/milestones/plateau: factor of a decay."
    )
    patience: int = Field(3, ge=0, description="scheduler=plateau: validations without progress.")
    accumulate: int = Field(1, ge=1, description="Batches whose gradients are added per step.")
    clip_grad: float | None = Field(None, gt=0, description="Gradient norm limit; null: none.")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="Decay of the averaged weights (EMA) of validation; 0: none."
    )
    max_nan: int = Field(
        10,
        ge=0,
        description="Batches with a NaN or infinite loss that are skipped before the run stops.",
    )
    groups: dict[str, OptimGroup] = Field(
        default_factory=dict, description="Settings per network, by name (e.g. discriminator)."
    )
    phases: dict[str, PhaseOptions] = Field(default_factory=dict, description="Settings by phase.")


class MediaSection(Section):
    """Limits for files from unknown sources; a file above one is refused with a message."""

    max_hours: float = Field(6.0, gt=0, description="Longest video or sound, hours.")
    max_megapixels: float = Field(100.0, gt=0, description="Largest picture, million pixels.")
    max_array_gb: float = Field(4.0, gt=0, description="Largest unpacked array file, gigabytes.")
