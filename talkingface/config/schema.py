"""Types, ranges and meanings of the configuration keys that every run has.

A model or dataset adds its own keys with a class that derives from :class:`ModelConfig` or
:class:`DatasetConfig` (its YAML names it as ``classes.config``). Unknown keys are errors.
``properties/overall.yaml`` holds the default values that users often change.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.sections import (
    AutoInt,
    Learner,
    MediaSection,
    NameList,
    OptimSection,
    OrNone,
    PathList,
    Section,
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
        "budget_minutes": "minutes",
        "temp_dir": "results_dir",
        "resume_checkpoint_path": "resume",
        "lse_checkpoint_path": "metric_params.LSE.weights",
        "vshift": "metric_params.LSE.vshift",
    }

    model: str = Field("", description="Name of the model.")
    dataset: str = Field("", description="Name of the dataset.")
    preset: str | None = Field(None, description="Named settings in the model's YAML.")
    plugin_path: PathList = Field(
        default_factory=list, description="Folders with further models, datasets and metrics."
    )

    seed: int = Field(2023, ge=0, lt=2**31, description="Seed of all random numbers.")
    reproducibility: bool = Field(
        True, description="Deterministic kernels; also seeds workers and the sampler."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto, cpu, cuda, cuda:0 or mps; auto uses a GPU if there is one.",
    )
    devices: int = Field(1, ge=1, description="Number of devices (or CPU processes) to train on.")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true", description="Number format of training; bf16-mixed suits recent GPUs."
    )
    channels_last: bool = Field(
        False, description="NHWC memory format for image networks; faster on most hardware."
    )
    num_workers: AutoInt = Field("auto", description="Loader processes; auto: from the CPU count.")
    process_workers: AutoInt = Field("auto", description="Preparation processes; auto: CPU count.")
    executor: Literal["local", "ray", "dask"] = Field(
        "local",
        description="Where clips are prepared: processes of this machine, or an existing ray or "
        "dask cluster (extras 'ray', 'dask') that mounts the same folders.",
    )
    executor_address: str | None = Field(
        None,
        description="Address of the cluster; null: RAY_ADDRESS or DASK_SCHEDULER_ADDRESS.",
    )
    shard: str | None = Field(
        None,
        pattern=r"^[1-9]\d*/[1-9]\d*$",
        description="i/n prepares the i-th (from 1) of n equal shards of the clips and stops; for "
        "job arrays of a cluster.",
    )
    show_progress: Literal["auto"] | bool = Field(
        "auto", description="Progress bars; auto: only on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity that is shown."
    )
    log_wandb: bool = Field(False, description="Also log to Weights & Biases (extra 'wandb').")

    stages: NameList = Field(["preprocess", "train", "evaluate"], description="Stages of this run.")
    need_preprocess: bool = Field(True, description="Old switch; false: no stage preprocess.")
    train: bool = Field(True, description="Old switch; false: no stage train.")
    evaluate_model_file: str | None = Field(
        None, description="Checkpoint to evaluate; without stages it implies stages=evaluate."
    )
    init: OrNone = Field(
        None,
        description="Weights of the same model and sizes from which training starts: checkpoint, "
        "run id, exported weights, official file or zoo (weights that ship with the toolkit).",
    )

    checkpoint_dir: str = Field("saved", description="Parent of the run folders.")
    checkpoint_sub_dir: str | None = Field(None, description="Extra folder below checkpoint_dir.")
    results_dir: str = Field("results", description="Generated videos and metric tables.")
    log_dir: str = Field("log", description="Text logs.")
    tensorboard_dir: str = Field("log_tensorboard", description="TensorBoard event files.")
    weights_dir: str = Field("checkpoints", description="Folder of pretrained weights.")

    epochs: int = Field(300, ge=0, description="Passes over the training split.")
    max_steps: int | None = Field(
        None, ge=1, description="Optimizer steps after which training ends; overrides epochs."
    )
    max_minutes: float | None = Field(
        None,
        gt=0,
        description="Minutes after which training ends cleanly; for jobs with a time limit.",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="Planned minutes of training, about: after 5 % of them the number of steps is "
        "set from the speed so far, and with it the schedule (optim.scheduler cosine or linear).",
    )
    batch_size: int = Field(16, ge=1, description="Training items per step and device.")
    eval_batch_size: int = Field(16, ge=1, description="Items per validation or inference step.")
    shuffle: bool = Field(True, description="Shuffle the training items in each epoch.")
    learner: Learner = Field("adam", description="Optimizer.")
    learning_rate: float = Field(1e-4, gt=0, description="Step size of the optimizer.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty of the optimizer.")
    optim: OptimSection = Field(default_factory=OptimSection, description="Optimisation details.")
    media: MediaSection = Field(default_factory=MediaSection, description="Limits for input files.")
    eval_step: int = Field(1, ge=0, description="Epochs between two validations; 0: never.")
    valid_batches: int | None = Field(None, ge=1, description="Batches per validation; null: all.")
    best: Literal["valid_metric", "last"] = Field(
        "valid_metric",
        description="Which state becomes best.ckpt: that with the best valid_metric, or the last "
        "one, for trainings whose learning rate ends near zero.",
    )
    valid_metric: str = Field(
        "loss",
        description="Criterion of the best checkpoint: loss or loss/<part> of the validation, or "
        "an output of a metric, e.g. PSNR_mouth.",
    )
    stopping_step: int = Field(
        10, ge=0, description="Validations without improvement before training stops; 0: never."
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
        description="SHA-256 of a trusted checkpoint from elsewhere that holds pickled objects.",
    )

    metrics: NameList = Field(default_factory=list, description="Metrics of the evaluation.")
    metric_params: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Settings per metric, e.g. metric_params.SSIM.kind."
    )
    baselines: NameList = Field(
        [
            "real",
            "copy_reference",
            "retrieved_mouth",
            "shuffled_audio",
            "first_stage",
            "warped",
            "other_driver",
        ],  # fmt: skip
        description="Further rows of the result table, where they apply to the model; also "
        "silent_audio, for the metric LipLeak.",
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
        """Trained networks that the model of a configuration needs; a name is the component's key
        in the section ``weights``.

        Raises:
            ConfigError: keys contradict each other.
        """
        return {}

    @classmethod
    def missing(cls, cfg: Any) -> list[str]:
        """Messages, each with a remedy, on files or packages that a configuration needs and that
        are missing; called before any slow work."""
        return []


class PersonName(Section):
    """Name of the person in the clips."""

    name: str | None = Field(
        None,
        pattern=r"^[^/\\.][^/\\]*$",
        description="Person in all clips; null: the speaker according to the clips' names.",
    )


class FaceSection(Section):
    """Face detection and tracking."""

    choose: Literal["main", "largest", "left", "right"] | Annotated[int, Field(ge=0)] = Field(
        "main",
        description="Which of several faces is used: main (large and long in view), largest, "
        "left, right, or a number counted from 0 at the left. --face=left is short for "
        "--face.choose=left.",
    )
    max_faces: int = Field(3, ge=1, description="Largest number of faces detected in a frame.")
    max_side: int = Field(
        1280,
        ge=64,
        description="Larger frames are downscaled by an integer factor for detection, so that the "
        "long side fits into this, in pixels.",
    )
    min_detection: float = Field(
        0.5, ge=0, le=1, description="Lowest confidence of MediaPipe's face detector."
    )
    min_face_ratio: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Lowest share of frames with a face; a clip below it is skipped.",
    )
    box_smoothing: float = Field(
        0.2, ge=0, description="Standard deviation of the temporal box smoothing, in seconds."
    )
    box_margins: Annotated[
        list[Annotated[float, Field(ge=-0.5, le=1)]], Field(min_length=3, max_length=3)
    ] = Field(
        [0.0, 0.06, 0.02],
        description="Margins of a face box above, below and at each side of the face oval, as "
        "shares of its height; change them for weights that were trained on another detector's "
        "boxes.",
    )


class QualitySection(Section):
    """Limits of good training clips. The report lists clips beyond a limit; null: no limit."""

    drop: NameList = Field(
        default_factory=list,
        description="Clips beyond these limits are not used for training and testing, e.g. "
        "[max_av_offset_ms]; all: every limit. For other limits they are only listed.",
    )
    max_av_offset_ms: float | None = Field(
        120.0, ge=0, description="Estimated offset between audio and video, in ms."
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
    max_yaw: float | None = Field(50.0, ge=0, description="Yaw in 98 % of frames, in degrees.")
    max_pitch: float | None = Field(40.0, ge=0, description="Pitch in 98 % of frames, in degrees.")
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
        1.0, ge=0, description="Longest stretch of identical frames, in seconds."
    )
    max_gap_seconds: float | None = Field(
        1.0, ge=0, description="Longest stretch without the face, in seconds."
    )
    max_cuts: int | None = Field(0, ge=0, description="Number of scene cuts.")
    max_persons: int | None = Field(1, ge=0, description="Number of persons in view.")
    min_speech_ratio: float | None = Field(
        0.15, ge=0, le=1, description="Share of the time with speech."
    )
    min_loudness_db: float | None = Field(-50.0, description="Mean power of the sound, in dB.")
    min_bandwidth_hz: float | None = Field(
        5000.0, ge=0, description="Highest frequency of the sound (telephone: 3900 Hz)."
    )
    max_clipped: float | None = Field(
        0.01, ge=0, le=1, description="Share of clipped audio samples."
    )
    max_length_difference: float | None = Field(
        0.5, ge=0, description="Difference in length of audio and video, in seconds."
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
    """How to get the speaker and the source recording of a clip from its file name.

    A clip's id is its path below the data folder without suffix, with ``/``.
    """

    pattern: PathList = Field(
        default_factory=list,
        description="Regular expressions for whole clip ids, e.g. '(?P<speaker>s\\d+)/.*'. The "
        "groups of the first that matches are fields of the templates, beside id, folder, name.",
    )
    speaker: PathList = Field(
        ["{speaker}"],
        description="Templates of the speaker; the first whose fields all exist is used, else the "
        "folder.",
    )
    source: PathList = Field(
        ["{source}"],
        description="Templates of the source video, used like those of the speaker, else the id "
        "without a trailing piece number.",
    )
    audio: PathList = Field(
        default_factory=list,
        description="Templates of audio files below data_root; the first file that exists "
        "replaces the audio of the video.",
    )
    exclude: str | None = Field(None, description="Regex for whole ids of clips to leave out.")
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
                        f"'{template}' uses '{name}', but clips.pattern has no group "
                        f"(?P<{name}>...); known: {', '.join(dict.fromkeys(known))}"
                    )
        return value


class DatasetConfig(Section):
    """Keys of every dataset: the folders of its files and the split."""

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
        description="Unit that stays in one split: a source video, a speaker, a clip (clips of one "
        "video may then be in different splits) or a folder. time: the beginning of every source "
        "video is for training and its end for testing.",
    )
    clips: ClipsSection = Field(default_factory=ClipsSection, description="Names of the clips.")
    max_failed_ratio: float = Field(
        0.5, ge=0, le=1, description="Largest share of unusable clips before the run stops."
    )
    min_seconds: float = Field(0.8, ge=0, description="Shorter clips are skipped, in seconds.")
    face: FaceSection = Field(default_factory=FaceSection, description="Face tracking.")
    quality: QualitySection = Field(default_factory=QualitySection, description="Quality limits.")
