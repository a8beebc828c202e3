"""``--infer``: generate videos of one source with one or several audio files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.components.runs import newest_checkpoint
from talkingface.components.zoo import NAME, has_entry, is_in_zoo, is_zoo, zoo_file
from talkingface.config.config import Config, load_config
from talkingface.data.filelists import read_text
from talkingface.data.media.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from talkingface.data.media.limits import set_limits
from talkingface.data.media.outputs import require_suffix
from talkingface.errors import ConfigError, DataError, TalkingFaceError
from talkingface.registry import Registry, get_registry
from talkingface.utils.logs import setup_logging
from talkingface.utils.paths import project_root, refuse_to_replace, resolve, shown

if TYPE_CHECKING:
    from talkingface.pipeline.base import Pipeline

log = logging.getLogger(__name__)


def infer_command(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: list[str]
) -> int:
    """Run ``--infer``; see the help text for its options. Returns the exit status."""
    generate(options, config, config_files)
    return 0


def generate(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: list[str]
) -> list[Path]:
    """Generate one video for each sound; returns their paths.

    Raises:
        ConfigError, DataError, WeightsError: wrong options or files; of several sounds, those that
            failed are named after the others are done.
    """
    cfg, checkpoint = configure(options, config, config_files)
    if not cfg.model_entry.target("pipeline"):
        raise ConfigError(f"{cfg.model} generates no videos")
    kind = cfg.registry.resolve(cfg.model_entry, "pipeline")
    optional = {"audio": hasattr(kind, "own_sound"), "source": kind.source_kind == "optional"}
    for key in optional:
        if not options.get(key) and not optional[key]:
            raise ConfigError(f"--infer needs --{key}=<file>")
    if options.get("driver") and not hasattr(kind, "with_driver"):
        raise ConfigError("--driver is for models that a driving video animates, e.g. HeadGAN")
    source = Path(options["source"]).expanduser() if options.get("source") else None
    if source and not source.exists() and kind.source_kind != "name":
        _existing(str(source), "source")
    driver = _existing(options["driver"], "driver") if options.get("driver") else None
    sounds: list[Path | None] = [None]
    if options.get("audio"):
        sounds = list(list_sounds(_existing(options["audio"], "audio")))
    if hasattr(kind, "implied"):
        config = {**kind.implied(options), **config}
        cfg, checkpoint = configure(options, config, config_files)
    setup_logging(cfg.log_level)
    set_limits(cfg.media)
    if checkpoint is not None:
        log.info("%s with %s", cfg.model, shown(checkpoint))
    elif getattr(kind, "works_untrained", False):
        log.info("%s without a trained network, from the source alone", cfg.model)
    failed: list[str] = []
    written: list[Path] = []
    plan = plan_outputs(sounds, source, options.get("output"), cfg, driver)
    listed = Path(options["audio"]).expanduser() if options.get("audio") else None
    inputs = (source, driver, checkpoint, listed, *sounds, *map(Path, config_files))
    for _, target in plan:
        require_suffix(target)
        refuse_to_replace(target, inputs)
    pipeline = load_pipeline(cfg, checkpoint)
    for sound, target in plan:
        try:
            rendered = pipeline.render(
                source,
                pipeline.own_sound(source, driver) if sound is None else sound,
                target,
                driver=driver,
                seed=cfg.seed,
                show_progress=cfg.show_progress,
                finished=True,
            )
        except TalkingFaceError as error:
            if len(sounds) == 1:
                raise
            failed.append(f"{sound.name}: {error}")
            log.error("%s", failed[-1])
            continue
        log.info(
            "%s: %d frames, %.1f s, real-time factor %.2f (%.0f ms per frame)",
            shown(rendered.path),
            rendered.frames,
            rendered.seconds_of_video,
            rendered.real_time_factor,
            1000 * rendered.seconds_taken / max(rendered.frames, 1),
        )
        written.append(rendered.path)
    if failed:
        raise DataError(f"{len(failed)} of {len(sounds)} sounds failed:\n  " + "\n  ".join(failed))
    return written


def load_pipeline(cfg: Config, checkpoint: Path | None) -> Pipeline:
    """The pipeline of a model with its weights, on the configured device; also sets the seeds."""
    from talkingface.components.models import build_model, load_model_weights
    from talkingface.pipeline.build import build_pipeline
    from talkingface.trainer.runtime import choose_device
    from talkingface.utils.seeding import seed_everything

    seed_everything(cfg.seed, cfg.reproducibility)
    model = build_model(cfg)
    if checkpoint is not None:
        load_model_weights(model, checkpoint, cfg.trust_checkpoint)
    return build_pipeline(cfg, model.eval(), choose_device(cfg.device))


def _existing(text: str, key: str) -> Path:
    path = Path(text).expanduser()
    if not path.exists():
        raise DataError(f"--{key}: {path} does not exist")
    return path


def list_sounds(path: Path) -> list[Path]:
    """Audio files of ``--audio``: the file, all files in a folder, or those in a ``.txt`` list."""
    if path.is_dir():
        known = AUDIO_SUFFIXES + VIDEO_SUFFIXES
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in known)
        files = [p for p in files if not p.name.startswith(".")]
        if not files:
            raise DataError(f"--audio: no audio file in the folder {path}")
        return files
    if path.suffix.lower() == ".txt":
        lines = read_text(path).splitlines()
        names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        files = [path.parent / name for name in names]
        missing = [str(p) for p in files if not p.exists()]
        if missing or not files:
            what = f"files that do not exist: {', '.join(missing[:3])}" if missing else "no file"
            raise DataError(f"--audio: {path} lists {what}")
        return files
    return [path]


def plan_outputs(
    sounds: list[Path | None],
    source: Path | None,
    output: str | None,
    cfg: Config,
    driver: Path | None = None,
) -> list[tuple[Path | None, Path]]:
    """Audio file and target of each video. With several audio files ``--output`` is a folder."""
    start = source.stem if source else cfg.model
    if len(sounds) == 1 and output and Path(output).suffix:
        return [(sounds[0], Path(output).expanduser())]
    default = resolve(cfg.results_dir) / cfg.model / "infer"
    folder = Path(output).expanduser() if output else default
    if folder.suffix and len(sounds) > 1:
        raise ConfigError(f"--output={output} must be a folder: there are {len(sounds)} sounds")
    if sounds == [None]:
        name = driver.stem if driver else str(cfg.get("infer.mode", "own"))
        return [(None, folder / f"{start}_{name}.mp4")]
    plan: dict[Path, Path] = {}
    for sound in sounds:  # a repeated name gets the suffix of the audio file
        target = folder / f"{start}_{sound.stem}.mp4"
        if target in plan:
            target = folder / f"{start}_{sound.name.replace('.', '_')}.mp4"
        plan[target] = sound
    return [(sound, target) for target, sound in plan.items()]


def configure(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: list[str]
) -> tuple[Config, Path | None]:
    """Configuration and weights file: of a run, or of an official file with default settings.

    The file is None for a model without a run that generates without weights, or that only joins
    trained parts; the keys ``weights.<part>`` then give the files of the parts.

    Raises:
        ConfigError: no model or no trained run.
    """
    registry = get_registry(config.get("plugin_path"))
    given = options.get("checkpoint")
    saved = resolve(str(config.get("checkpoint_dir", "saved")))
    if config.get("checkpoint_sub_dir"):
        saved = saved / str(config["checkpoint_sub_dir"]).lstrip("/\\")
    model = config.get("model")
    if not given and not model:
        raise ConfigError(
            "--infer needs --model=<Model> (its newest run is used) or --checkpoint=PATH"
        )
    name = registry.entry("model", model).name if model else None
    dataset = config.get("dataset")
    if dataset and not given:
        dataset = registry.entry("dataset", dataset).name
    checkpoint: Path | None = None
    untrained = name is not None and _works_untrained(registry, name)
    if given or not untrained or newest_checkpoint(saved, name, dataset) is not None:
        from talkingface.components.models import config_of_checkpoint

        checkpoint = find_checkpoint(given, saved, name, dataset)
        stored = config_of_checkpoint(checkpoint, config.get("trust_checkpoint"))
        if stored is not None:
            if name and stored["model"] != name:
                raise ConfigError(f"{checkpoint} belongs to {stored['model']}, not to {name}")
            cli = {k: v for k, v in config.items() if k not in ("model", "dataset", "preset")}
            base = usable_here(stored, config)
            # The zoo is not for one dataset: that of the command is where a source's clips are.
            of = dataset if dataset and is_in_zoo(checkpoint) else base["dataset"]
            cfg = load_config(base["model"], of, base=base, config_files=config_files, cli=cli)
            return cfg, checkpoint
        if not name:
            raise ConfigError(
                f"{checkpoint} does not contain the name of its model; add --model=<Model>"
            )
    cfg = load_config(name, dataset or "Synthetic", config_files=config_files, cli=config)
    return cfg, checkpoint


def _works_untrained(registry: Registry, name: str) -> bool:
    """Whether a model has no weights of its own, or generates without them."""
    entry = registry.entry("model", name)
    if not entry.target("dataset"):
        return True
    if not entry.target("pipeline"):
        return False
    return getattr(registry.resolve(entry, "pipeline"), "works_untrained", False)


def usable_here(stored: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a checkpoint without what only its training needs and this machine lacks.

    Args:
        stored: settings in the checkpoint.
        config: keys of the command.

    Raises:
        ConfigError: the model is a plugin, and its folder is not known here.
    """
    left_out = ("resume", "evaluate_model_file", "plugin_path", "preset")
    base = {key: value for key, value in stored.items() if key not in left_out}
    folders = [str(f) for f in stored.get("plugin_path") or () if Path(f).expanduser().is_dir()]
    if folders and not config.get("plugin_path"):
        base["plugin_path"] = folders
    registry = get_registry(config.get("plugin_path") or folders or None)
    if base["model"] not in registry.names("model"):
        raise ConfigError(
            f"The checkpoint's model {base['model']} is a plugin; add --plugin_path=<its folder>"
        )
    if base["dataset"] not in registry.names("dataset"):
        entry = registry.entry("model", base["model"])
        datasets = registry.entries("dataset").values()
        base["dataset"] = next(d.name for d in datasets if registry.supports(entry, d))
    return base


def find_checkpoint(given: str | None, saved: Path, model: str | None, dataset: str | None) -> Path:
    """A checkpoint by path, run id, run folder, name below ``checkpoints/`` or zoo entry; by
    default that of the newest run, else that of the zoo."""
    if given and is_zoo(given):
        return zoo_file(given, model)
    if not given:
        newest = newest_checkpoint(saved, model or "*", dataset)
        if newest is None and has_entry(model):
            log.info("there is no run of %s yet; the weights of the zoo are used", model)
            return zoo_file(NAME, model)
        if newest is None:
            raise ConfigError(
                f"There is no trained run of {model} below {shown(saved)}. Train one, or name "
                "weights with --checkpoint=PATH."
            )
        return newest
    paths = [Path(given).expanduser(), resolve(given), project_root() / "checkpoints" / given]
    for path in paths:
        if path.is_file():
            return path
        if (path / "checkpoints" / "best.ckpt").is_file():
            return path / "checkpoints" / "best.ckpt"
    for run in saved.glob(f"*/*/{given}/checkpoints/best.ckpt"):
        return run
    raise DataError(
        f"--checkpoint={given}: no such file, run folder or run id (looked in "
        f"{', '.join(str(p) for p in dict.fromkeys(paths))} and {shown(saved)})"
    )
