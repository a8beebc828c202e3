"""Types, ranges and meanings of the configuration keys that every run has.

A model or dataset adds its own keys with a class that derives from :class:`ModelConfig` or
:class:`DatasetConfig` (its YAML names it as ``classes.config``). Unknown keys are errors.
Default values that users are meant to change live in ``properties/overall.yaml``.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from talkingface.config.component_spec import ComponentSpec


class Section(BaseModel):
    """A group of keys; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _comma_list(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


NameList = Annotated[list[str], BeforeValidator(_comma_list)]
PathList = Annotated[list[str], BeforeValidator(_as_list)]
Schedule = Literal["none", "cosine", "linear", "step", "milestones", "plateau", "epochs"]
AutoInt = Literal["auto"] | Annotated[int, Field(ge=0)]


class OptimGroup(Section):
    """Settings of one network's optimizer; null keeps the run-wide value."""

    learner: Literal["adam", "adamw", "sgd", "rmsprop"] | None = Field(
        None, description="Optimizer."
    )
    learning_rate: float | None = Field(None, gt=0, description="Step size.")
    weight_decay: float | None = Field(None, ge=0, description="L2 penalty.")
    betas: tuple[float, float] | None = Field(None, description="Adam's two decay rates.")


class PhaseOptions(Section):
    """When and how one phase (e.g. the discriminator's) steps."""

    every: int = Field(1, ge=1, description="Step this phase on every n-th batch.")
    start_step: int = Field(0, ge=0, description="First global step at which the phase runs.")
    clip_grad: float | None = Field(
        None, gt=0, description="Largest gradient norm; null: run-wide."
    )


class OptimSection(Section):
    """How networks are optimised."""

    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's two decay rates.")
    scheduler: Schedule = Field(
        "none",
        description="Learning-rate schedule. cosine and linear fall to zero at the end of the run; "
        "milestones decays at given steps; plateau watches valid_metric; epochs stays for "
        "constant_epochs and then falls by equal steps, one per epoch.",
    )
    constant_epochs: int = Field(
        0, ge=0, description="scheduler=epochs: epochs at the full rate; the others fall."
    )
    zero_last: bool = Field(
        False,
        description="scheduler=epochs: the last epoch has rate 0, as HeadGAN's official code.",
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
    clip_grad: float | None = Field(
        None, gt=0, description="Largest gradient norm; null: no limit."
    )
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="Decay of the averaged copy used for validation; 0: none."
    )
    max_nan: int = Field(
        10,
        ge=0,
        description="Batches with a NaN or infinite loss that are skipped before the run stops.",
    )
    groups: dict[str, OptimGroup] = Field(
        default_factory=dict, description="Settings per network, by name (e.g. discriminator)."
    )
    phases: dict[str, PhaseOptions] = Field(
        default_factory=dict, description="Settings per phase, by name."
    )


class OverallConfig(Section):
    """Keys of every run."""

    aliases: ClassVar[dict[str, str]] = {
        "train_batch_size": "batch_size",
        "evaluate_batch_size": "eval_batch_size",
        "initial_learning_rate": "learning_rate",
        "lr": "learning_rate",
        "nepochs": "epochs",
        "worker": "num_workers",
        "gpu_id": "devices",
        "state": "log_level",
        "temp_dir": "results_dir",
        "resume_checkpoint_path": "resume",
        "lse_checkpoint_path": "metric_params.LSE.weights",
        "vshift": "metric_params.LSE.vshift",
    }

    model: str = Field("", description="Name of the model.")
    dataset: str = Field("", description="Name of the dataset.")
    preset: str | None = Field(None, description="Named group of settings of the model's YAML.")
    plugin_path: PathList = Field(
        default_factory=list, description="Folders with further models, datasets and metrics."
    )

    seed: int = Field(2023, ge=0, lt=2**31, description="Seed of every random number.")
    reproducibility: bool = Field(
        True, description="Deterministic kernels; also seeds workers and the sampler."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto takes a GPU when there is one: auto, cpu, cuda, cuda:0, mps.",
    )
    devices: int = Field(1, ge=1, description="Number of devices (or CPU processes) to train on.")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true", description="Number format of training; bf16-mixed suits recent GPUs."
    )
    channels_last: bool = Field(
        False, description="NHWC memory format for image networks; faster on most hardware."
    )
    num_workers: AutoInt = Field("auto", description="Loader processes; auto: from the CPU count.")
    process_workers: AutoInt = Field(
        "auto", description="Preprocessing processes; auto: CPU count."
    )
    executor: Literal["local", "ray", "dask"] = Field(
        "local",
        description="Where clips are prepared: processes of this machine, or an existing ray or "
        "dask cluster (extras 'ray', 'dask') that sees the same folders.",
    )
    executor_address: str | None = Field(
        None,
        description="Address of the cluster; null: RAY_ADDRESS or DASK_SCHEDULER_ADDRESS.",
    )
    shard: str | None = Field(
        None,
        pattern=r"^[1-9]\d*/[1-9]\d*$",
        description="i/n prepares the i-th of n equal parts of the clips (from 1) and stops; for "
        "the job arrays of batch systems.",
    )
    show_progress: Literal["auto"] | bool = Field(
        "auto", description="Progress bars; auto: only on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is shown."
    )
    log_wandb: bool = Field(False, description="Also log to Weights & Biases (extra 'wandb').")

    stages: NameList = Field(
        ["preprocess", "train", "evaluate"], description="Stages that this run goes through."
    )
    need_preprocess: bool = Field(
        True, description="Old switch; false removes the stage preprocess."
    )
    train: bool = Field(True, description="Old switch; false removes the stage train.")
    evaluate_model_file: str | None = Field(
        None, description="Checkpoint to evaluate; alone it implies stages=evaluate."
    )

    checkpoint_dir: str = Field("saved", description="Parent of the run folders.")
    checkpoint_sub_dir: str | None = Field(None, description="Extra folder below checkpoint_dir.")
    results_dir: str = Field("results", description="Generated videos and metric tables.")
    log_dir: str = Field("log", description="Text logs.")
    tensorboard_dir: str = Field("log_tensorboard", description="TensorBoard event files.")
    weights_dir: str = Field(
        "checkpoints", description="Pretrained weights that the user provides."
    )

    epochs: int = Field(300, ge=0, description="Passes over the training split.")
    max_steps: int | None = Field(
        None, ge=1, description="Optimizer steps after which training ends; wins over epochs."
    )
    max_minutes: float | None = Field(
        None,
        gt=0,
        description="Minutes after which training ends cleanly; for machines with a limit.",
    )
    batch_size: int = Field(16, ge=1, description="Training items per step and device.")
    eval_batch_size: int = Field(16, ge=1, description="Items per validation or inference step.")
    shuffle: bool = Field(True, description="New order of the training items each epoch.")
    learner: Literal["adam", "adamw", "sgd", "rmsprop"] = Field("adam", description="Optimizer.")
    learning_rate: float = Field(1e-4, gt=0, description="Step size of the optimizer.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty of the optimizer.")
    optim: OptimSection = Field(default_factory=OptimSection, description="Optimisation details.")
    eval_step: int = Field(1, ge=0, description="Epochs between two validations; 0: never.")
    valid_batches: int | None = Field(
        None, ge=1, description="Validate on at most this many batches; null: on all."
    )
    valid_metric: str = Field(
        "loss",
        description="Criterion of the best checkpoint: loss or loss/<part> of the validation.",
    )
    stopping_step: int = Field(
        10, ge=0, description="Validations without progress before training stops; 0: never."
    )
    saved: bool = Field(True, description="Keep checkpoints.")
    save_minutes: float = Field(
        5.0, gt=0, description="Longest time between two writes of last.ckpt, in minutes."
    )
    keep_every: int = Field(0, ge=0, description="Also keep a checkpoint every n epochs; 0: none.")
    resume: str | bool = Field(
        False, description="false, auto (newest run of equal settings) or the path of a checkpoint."
    )
    log_every: int = Field(10, ge=1, description="Steps between two logged losses.")
    trust_checkpoint: str | None = Field(
        None,
        description="SHA-256 of a foreign checkpoint that holds pickled objects and is trusted.",
    )

    metrics: NameList = Field(default_factory=list, description="Metrics of the evaluation.")
    metric_params: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Settings per metric, e.g. metric_params.SSIM.kind."
    )
    baselines: NameList = Field(
        ["real", "copy_reference", "shuffled_audio", "first_stage", "warped", "other_driver"],
        description="Rows beside the model's own in the result table, where they make sense.",
    )
    eval_clips: int | None = Field(None, ge=1, description="Evaluate only the first n test clips.")
    n_preview: int = Field(3, ge=0, description="Side-by-side preview videos per evaluation.")
    metric_decimal_place: int = Field(4, ge=0, description="Decimals shown; files keep all digits.")
    loss_decimal_place: int = Field(4, ge=0, description="Decimals shown for losses.")

    @field_validator("shard")
    @classmethod
    def _shard_exists(cls, value: str | None) -> str | None:
        if value is not None:
            number, count = map(int, value.split("/"))
            if number > count:
                raise ValueError(f"shards are counted from 1/{count} to {count}/{count}")
        return value


class ModelConfig(Section):
    """Base of the keys that a model adds: derive, add sections, name it as ``classes.config``."""

    aliases: ClassVar[dict[str, str]] = {}

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        """Trained networks that the model of a configuration needs, by the names of their keys in
        the section ``weights``.

        Raises:
            ConfigError: keys contradict each other.
        """
        return {}

    @classmethod
    def missing(cls, cfg: Any) -> list[str]:
        """What a configuration needs and is not there, each with a way out; asked before any slow
        work."""
        return []


class PersonName(Section):
    """Who is in the pictures."""

    name: str | None = Field(
        None,
        pattern=r"^[^/\\.][^/\\]*$",
        description="All clips show this person; null: the speaker that their names tell.",
    )


class FaceSection(Section):
    """How faces are found and followed."""

    choose: Literal["main", "largest", "left", "right"] | Annotated[int, Field(ge=0)] = Field(
        "main",
        description="Whose face is taken when there are several: main (large and long in view), "
        "largest, left, right, or a number counted from 0 at the left. --face=left is short for "
        "--face.choose=left.",
    )
    max_faces: int = Field(3, ge=1, description="Faces looked for in a frame.")
    max_side: int = Field(
        1280,
        ge=64,
        description="Larger pictures are reduced by a whole factor to this long side before "
        "detection, in pixels.",
    )
    min_detection: float = Field(
        0.5, ge=0, le=1, description="Least confidence of MediaPipe's face detector."
    )
    min_face_ratio: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Least share of frames with a face; a clip below it is skipped.",
    )
    box_smoothing: float = Field(
        0.2, ge=0, description="Standard deviation of the temporal box smoothing, in seconds."
    )
    box_margins: Annotated[
        list[Annotated[float, Field(ge=-0.5, le=1)]], Field(min_length=3, max_length=3)
    ] = Field(
        [0.0, 0.06, 0.02],
        description="Room of a face box above, below and at each side of the face oval, as shares "
        "of its height; for weights that were trained on another detector's boxes.",
    )


class QualitySection(Section):
    """Limits of good training clips. Clips outside are listed in the report; null: no limit."""

    drop: NameList = Field(
        default_factory=list,
        description="Limits whose breach leaves a clip out of training and testing, e.g. "
        "[max_av_offset_ms]; all: every limit. Others are only listed.",
    )
    max_av_offset_ms: float | None = Field(
        120.0, ge=0, description="Estimated distance of sound and picture, in ms."
    )
    min_av_confidence: float = Field(
        0.15, ge=0, description="Estimates with a smaller confidence are ignored."
    )
    min_face_height: float | None = Field(
        50.0, ge=0, description="Median height from forehead to chin, in pixels."
    )
    min_sharpness: float | None = Field(
        20.0, ge=0, description="Median variance of the Laplacian of the face at 128 px."
    )
    max_yaw: float | None = Field(
        50.0, ge=0, description="Turn of the head to the side (98 % of the frames), in degrees."
    )
    max_pitch: float | None = Field(
        40.0, ge=0, description="Nod of the head (98 % of the frames), in degrees."
    )
    min_mouth_motion: float | None = Field(
        0.6, ge=0, description="Standard deviation of the lip height, in % of the face's height."
    )
    max_mouth_hidden: float | None = Field(
        0.1, ge=0, le=1, description="Share of frames in which something covers the mouth."
    )
    max_repeated: float | None = Field(
        0.2, ge=0, le=1, description="Share of frames equal to the one before."
    )
    max_still_seconds: float | None = Field(
        1.0, ge=0, description="Longest stretch of a frozen picture, in seconds."
    )
    max_gap_seconds: float | None = Field(
        1.0, ge=0, description="Longest stretch without the face, in seconds."
    )
    max_cuts: int | None = Field(0, ge=0, description="Scene cuts.")
    max_persons: int | None = Field(1, ge=0, description="Persons in view.")
    min_speech_ratio: float | None = Field(
        0.15, ge=0, le=1, description="Share of the time with speech."
    )
    max_clipped: float | None = Field(
        0.01, ge=0, le=1, description="Share of overdriven samples of the sound."
    )
    max_length_difference: float | None = Field(
        0.5, ge=0, description="Difference in length of sound and picture, in seconds."
    )

    @field_validator("drop")
    @classmethod
    def _limits_exist(cls, value: list[str]) -> list[str]:
        known = [key for key in cls.model_fields if key[:4] in ("max_", "min_")]
        known.remove("min_av_confidence")
        if value == ["all"]:
            return known
        for name in value:
            if name not in known:
                raise ValueError(f"'{name}' is not a limit; known: {', '.join(known)}")
        return value


class ClipsSection(Section):
    """How a corpus names its files: who speaks, and which clips are pieces of one recording.

    A clip's id is its path below the data folder without suffix, with ``/``.
    """

    pattern: PathList = Field(
        default_factory=list,
        description="Regular expressions for whole clip ids, e.g. '(?P<speaker>s\\d+)/.*'. The "
        "first that matches gives names for the templates; id, folder and name always exist.",
    )
    speaker: PathList = Field(
        ["{speaker}"],
        description="Templates of the speaker; the first whose names are all known is taken, "
        "else the folder.",
    )
    source: PathList = Field(
        ["{source}"],
        description="Templates of the source video, alike; else the id without a trailing piece "
        "number.",
    )
    audio: PathList = Field(
        default_factory=list,
        description="Templates of sound files below data_root; the first that exists replaces the "
        "video's own sound.",
    )
    exclude: str | None = Field(
        None, description="Regular expression for whole ids of clips that are not used."
    )
    same_source: list[Annotated[list[str], Field(min_length=2)]] = Field(
        default_factory=list,
        description="Groups of clip ids or source names that show the same footage.",
    )

    @field_validator("pattern", "exclude")
    @classmethod
    def _compiles(cls, value: Any) -> Any:
        for text in [value] if isinstance(value, str) else value or ():
            try:
                re.compile(text)
            except re.error as error:
                raise ValueError(f"'{text}' is not a regular expression: {error}") from None
        return value

    @field_validator("speaker", "source", "audio")
    @classmethod
    def _names_are_known(cls, value: list[str], info: ValidationInfo) -> list[str]:
        patterns = info.data.get("pattern")
        if patterns is None or value == cls.model_fields[info.field_name].default:
            return value
        known = ["id", "folder", "name", *(g for p in patterns for g in re.compile(p).groupindex)]
        for template in value:
            for _, name, _, _ in Formatter().parse(template):
                if name is not None and name not in known:
                    raise ValueError(
                        f"'{template}' uses '{name}', which no group (?P<{name}>...) of "
                        f"clips.pattern gives; known: {', '.join(dict.fromkeys(known))}"
                    )
        return value


class DatasetConfig(Section):
    """Keys of every dataset: where its files lie and how they are split."""

    aliases: ClassVar[dict[str, str]] = {}

    root: str | None = Field(
        None, description="Folder of the dataset; null: dataset/<Dataset> in the project folder."
    )
    data_root: str | None = Field(None, description="Raw clips; null: <root>/data.")
    preprocessed_root: str | None = Field(
        None, description="Processed data; null: <root>/preprocessed_data."
    )
    train_filelist: str | None = Field(None, description="null: <root>/filelist/train.txt.")
    val_filelist: str | None = Field(None, description="null: <root>/filelist/val.txt.")
    test_filelist: str | None = Field(None, description="null: <root>/filelist/test.txt.")
    make_split: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1),
        description="Shares of train, val and test when the lists do not exist yet.",
    )
    split_by: Literal["source", "speaker", "clip", "folder", "time"] = Field(
        "source",
        description="Unit that is never divided by the split: a source video, a speaker, a clip "
        "(pieces of one video may then part) or a folder. time: the beginning of every source "
        "video trains and its end tests.",
    )
    clips: ClipsSection = Field(
        default_factory=ClipsSection, description="How the corpus names its files."
    )
    max_failed_ratio: float = Field(
        0.5, ge=0, le=1, description="Largest share of unusable clips before the run stops."
    )
    min_seconds: float = Field(0.8, ge=0, description="Shorter clips are skipped, in seconds.")
    face: FaceSection = Field(default_factory=FaceSection, description="Face tracking.")
    quality: QualitySection = Field(
        default_factory=QualitySection, description="Limits of good training clips."
    )
