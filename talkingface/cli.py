"""Command line: grammar, actions and exit statuses.

``--list``, ``--print_config``, ``--explain``, ``--help`` and ``--version`` do not import torch.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from talkingface.errors import ConfigError, Interrupted, TalkingFaceError
from talkingface.utils.paths import program
from talkingface.utils.yaml_files import parse_value

HELP = """\
Train, run and compare audio-driven talking heads.

  {program} --model=<Model> --dataset=<Dataset> [--key=value ...]

prepares the data (if needed), trains with validation, and evaluates the best checkpoint on the test
split. Every key of the configuration can be given as --key=value or --key value; a dotted key is a
key of a section (--loss.syncnet_wt=0.1); --flag and --no-flag set booleans; lists are [a, b].

Main options
  -m, --model NAME            model (see --list)
  -d, --dataset NAME          dataset (see --list)
  --preset NAME               named settings of the model, e.g. tiny (seconds on a CPU) or paper
  --config_files A.yaml,B.yaml  more settings; later files win
  --stages preprocess,train,evaluate
  --resume auto|PATH          continue a stopped run exactly where it stopped
  --evaluate_model_file PATH  evaluate a checkpoint without training
  --plugin_path DIR           folder with your own models, datasets and metrics

Actions that stop before training
  --list                      models, datasets, recipes and metrics, one line each
  --print_config              all settings of this command and where each comes from
  --explain KEY               meaning, type and default of one key
  --dry_run                   build everything, one step, one generated clip, one metric
  --help, --version

Your own videos
  --prepare --dataset=my_face --videos=a.mp4,b.mp4
                              make dataset/my_face and its YAML from videos of a person
Generate
  --infer --model=<Model> --audio=a.wav --source=face.mp4|face.png [--checkpoint=PATH|RUN]
          [--output=out.mp4]  --audio may be a folder or a .txt list
  --infer --model=HeadGAN --source=me.jpg --driver=other.mp4
                              another video drives the face; see docs/headgan.md
  --live --model=live_speech_portraits --audio=a.wav|microphone --source=<person>
                              generate while the audio arrives, with a bounded delay
Weights
  --fetch=NAME[,NAME]         download a known file (checkpoints/manifest.yaml) and check it; NAME
                              may be a metric or model that uses it, e.g. LSE or NIQE
Several stages
  --recipe=NAME --dataset=NAME [--preset=...] [--<stage>.key=value] [--<stage>=CHECKPOINT]
                              runs that build on each other, e.g. hyperlips; the same command
                              again continues a stopped recipe
Score videos of any tool
  --evaluate_videos=DIR[,DIR2] --reference=DIR [--metrics=LMD,LSE] [--output=DIR]
                              pairs by name; one row per folder and one for the real videos
Compare
  --benchmark --models=A,B,C --datasets=D,E [--baseline=ROW] [--metrics=...] [--output=DIR]
                              score all on the same clips; writes CSV, Markdown, LaTeX and
                              benchmark.html. A model's name means its newest run; a run id, a
                              checkpoint or a folder of videos is accepted too, optionally as
                              Title=... A dataset may be a folder of real videos. The same command
                              again continues where it stopped.

Exit status: 0 success, 1 unexpected error, 2 an error that you can correct, 3 a stage has no
usable result, 130 stopped by Ctrl-C (state saved). --debug shows the traceback of any error.
"""

_FLAGS = {
    *("list", "print_config", "help", "version", "debug"),
    *("dry_run", "infer", "live", "prepare", "benchmark"),
}
# Options of actions; their values are not parsed, since most are paths.
_OPTIONS = {
    *("explain", "videos", "audio", "source", "output", "checkpoint", "config_files"),
    *("fetch", "recipe", "evaluate_videos", "reference", "models", "datasets", "baseline"),
    "driver",
}
_TEXT_KEYS = {"model", "dataset", "preset", "plugin_path"}


@dataclass
class Arguments:
    """A parsed command line.

    Attributes:
        flags: given flags, e.g. actions without a value.
        options: options of actions, as typed.
        config: configuration keys with parsed values.
        config_files: paths of further YAML files.
    """

    flags: set[str] = field(default_factory=set)
    options: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    config_files: list[str] = field(default_factory=list)


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read ``--key=value``, ``--key value``, ``--flag`` and ``--no-flag``.

    Raises:
        ConfigError: a word without an option before it, or one key with two values.
    """
    args = Arguments()
    short = {"-m": "--model", "-d": "--dataset", "-h": "--help"}
    tokens = list(argv)
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        head, equals, value = token.partition("=")
        head = short.get(head, head)
        if not head.startswith("--") or len(head) < 3:
            raise ConfigError(
                f"'{token}' is not an option. Options are written --key=value; "
                "quote values that contain spaces."
            )
        first, dot, rest = head[2:].partition(".")
        key = first.replace("-", "_") + dot + rest.replace("-", "_")
        if key in _FLAGS:
            if not equals or parse_value(value) is not False:
                args.flags.add(key)
            continue
        if not equals:
            following = tokens[position] if position < len(tokens) else "--"
            if not following.startswith("--") and following not in short:
                value = following
                position += 1
            elif key.startswith("no_"):
                key, value = key[3:], "false"
            elif key in _OPTIONS | _TEXT_KEYS:
                raise ConfigError(f"--{key} needs a value: --{key}=...")
            else:
                value = "true"
        _store(args, key, value)
    return args


def _store(args: Arguments, key: str, value: str) -> None:
    if key == "config_files":
        for part in [value] if os.path.isfile(value) else value.split(","):
            # Spaces separate names, unless a file of the whole name exists.
            args.config_files += [part] if os.path.isfile(part) else part.split()
        return
    if key == "audio" and not {"infer", "live"} & args.flags and "{" in value:
        target, parsed = args.config, parse_value(value)
    elif key in _OPTIONS:
        target, parsed = args.options, value
    else:
        target, parsed = args.config, value if key in _TEXT_KEYS else parse_value(value)
    if key in target and target[key] != parsed:
        raise ConfigError(
            f"--{key} is given twice with different values: {target[key]!r}, {parsed!r}"
        )
    target[key] = parsed


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    # Busy waiting of PyTorch's OpenMP threads is slow as soon as another job uses the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character must not crash
            stream.reconfigure(errors="replace")
    try:
        return _dispatch(parse_arguments(argv))
    except TalkingFaceError as error:
        if debug:
            traceback.print_exc()
        rank = int(os.environ.get("LOCAL_RANK", 0))
        label = "stopped" if isinstance(error, Interrupted) else "error"
        if rank == 0 or label == "error":
            place = f"[process {rank}] " if rank else ""
            print(f"{place}{label}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped: interrupted by the user", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. '--list | head'
        sys.stderr.close()
        return 0


def _dispatch(args: Arguments) -> int:
    if "help" in args.flags:
        print(HELP.replace("{program}", program()), end="")
        return 0
    if "version" in args.flags:
        from talkingface import __version__

        print(__version__)
        return 0
    if "list" in args.flags:
        print(_listing(args), end="")
        return 0
    action = next((name for name in _ACTIONS if name in args.flags or name in args.options), None)
    _refuse_stray_options(args, action)
    if moved := {"convert", "verify"} & set(args.config):
        raise ConfigError(f"--{moved.pop()} is now a script: see python tools/convert.py --help")
    if action is None:
        return _run(args)
    if action == "recipe":
        for flag in ("dry_run", "print_config"):
            if flag in args.flags:
                raise ConfigError(
                    f"--{flag} belongs to a single model: use --model instead of --recipe"
                )
        if args.config.get("model"):
            raise ConfigError("--recipe names its models itself; leave --model out")
    from talkingface.utils.env import check_torchvision

    check_torchvision()
    if action == "prepare":
        from talkingface.quick_start.prepare import prepare_videos

        return prepare_videos(args.options, args.config)
    if action == "fetch":
        from talkingface.quick_start.fetch import fetch

        return fetch(args.options["fetch"], args.config)
    if action == "recipe":
        from talkingface.quick_start.recipe import run_recipe

        return run_recipe(args.options["recipe"], args.config, args.config_files, sys.argv)
    if action == "infer":
        from talkingface.quick_start.infer import infer_command as command
    elif action == "live":
        from talkingface.quick_start.live import live_command as command
    elif action == "evaluate_videos":
        from talkingface.quick_start.score_videos import score_videos as command
    else:
        from talkingface.benchmark.run import benchmark as command
    return command(args.options, args.config, args.config_files)


# Commands other than an ordinary run; of several given ones the first of this order is run.
_ACTIONS = (
    *("prepare", "infer", "live", "fetch", "recipe", "evaluate_videos"),
    "benchmark",
)
# Option -> actions that it belongs to.
_OWNERS = {
    "videos": ("prepare",),
    "audio": ("infer", "live"),
    "source": ("infer", "live"),
    "driver": ("infer",),
    "checkpoint": ("infer", "live"),
    "output": ("infer", "live", "evaluate_videos", "benchmark"),
    "reference": ("evaluate_videos",),
    "models": ("benchmark",),
    "datasets": ("benchmark",),
    "baseline": ("benchmark",),
}


def _refuse_stray_options(args: Arguments, action: str | None) -> None:
    for key in args.options:
        owners = _OWNERS.get(key, (action,))
        if action not in owners:
            hint = " (to evaluate a checkpoint: --evaluate_model_file=PATH)" * (key == "checkpoint")
            places = " or ".join(f"--{name}" for name in owners)
            raise ConfigError(f"--{key} belongs to {places}, which is missing.{hint}")


def _run(args: Arguments) -> int:
    from talkingface.config.config import load_config

    model, dataset = args.config.get("model"), args.config.get("dataset")
    if "explain" in args.options:
        from talkingface.config.reference import explain_key

        key = args.options["explain"]
        cfg = load_config(
            model or "HyperLipsBase",
            dataset or "Synthetic",
            config_files=args.config_files,
            cli=args.config,
        )
        print(explain_key(cfg, key, [] if model else cfg.registry.names("model")))
        return 0
    if not (model and dataset) and not args.config_files:
        missing = " and ".join(f"--{n}" for n in ("model", "dataset") if not args.config.get(n))
        print(_listing(args), end="")
        verb = "are" if " and " in missing else "is"
        raise ConfigError(f"{missing} {verb} missing. Choose from the tables above.")
    cfg = load_config(model, dataset, config_files=args.config_files, cli=args.config)
    if "print_config" in args.flags:
        from talkingface.config.reference import print_config

        print(print_config(cfg))
        return 0
    from talkingface.quick_start.quick_start import run_config

    run_config(cfg, dry_run="dry_run" in args.flags, command=sys.argv)
    return 0


def _listing(args: Arguments) -> str:
    from talkingface.registry import get_registry

    registry = get_registry(args.config.get("plugin_path"))
    arrows = {
        "up": "higher is better",
        "down": "lower is better",
        "zero": "nearer to 0 is better",
        "real": "nearer to the real video's is better",
    }
    lines = []

    def table(title: str, rows: list[tuple[str, str]]) -> None:
        width = max((len(row[0]) for row in rows), default=0)
        lines.extend([title, *(f"  {name:<{width}}  {text}" for name, text in rows), ""])

    models = registry.entries("model").values()
    datasets = registry.entries("dataset").values()
    table("Models", [(m.name, m.summary) for m in models])
    table("Datasets", [(d.name, d.summary) for d in datasets])
    pairs = []
    for entry in models:
        names = ", ".join(d.name for d in datasets if registry.supports(entry, d))
        presets = ", ".join(entry.presets) or "none"
        pairs.append((entry.name, f"{names}   (presets: {presets})"))
    table("Supported pairs", pairs)
    table("Recipes", [(r.name, r.summary) for r in registry.entries("recipe").values()])
    rows = []
    for entry in registry.entries("metric").values():
        outputs = entry.meta.get("outputs") or {}
        notes = "; ".join(f"{k}: {arrows.get(v.get('direction'), '')}" for k, v in outputs.items())
        rows.append((entry.name, f"{entry.summary} [{notes}]"))
    table("Metrics", rows)
    return "\n".join(lines)
