"""Command line: grammar, actions and exit statuses.

``--list``, ``--print_config``, ``--explain``, ``--help`` and ``--version`` do not import torch.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from talkingface.commands import help_text, spelled_out
from talkingface.errors import ConfigError, Interrupted, TalkingFaceError
from talkingface.registry import get_registry, import_target
from talkingface.utils.limits import message_of, raise_file_limit, resource_problem
from talkingface.utils.paths import PACKAGE_DIR, program
from talkingface.utils.streams import tolerant_streams
from talkingface.utils.yaml_files import parse_value

_FLAGS = {
    *("list", "print_config", "version", "debug", "status", "export", "web"),
    *("dry_run", "infer", "live", "prepare", "benchmark"),
}
# Options of actions; their values are not parsed, since most are paths.
_OPTIONS = {
    *("explain", "videos", "audio", "source", "output", "checkpoint", "config_files"),
    *("fetch", "recipe", "evaluate_videos", "reference", "models", "datasets", "baseline"),
    *("driver", "help", "host", "port"),
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
            if key == "help":
                value = "main"
            elif not following.startswith("--") and following not in short:
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
    raise_file_limit()
    with tolerant_streams():
        return _main(argv, debug)


def _main(argv: list[str], debug: bool) -> int:
    try:
        return _dispatch(parse_arguments(spelled_out(argv)))
    except TalkingFaceError as error:
        if debug:
            traceback.print_exc()
        rank = int(os.environ.get("LOCAL_RANK", 0))
        label = "stopped" if isinstance(error, Interrupted) else "error"
        if rank == 0 or label == "error":
            place = f"[process {rank}] " if rank else ""
            print(f"{place}{label}: {message_of(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped: interrupted by the user", file=sys.stderr)
        return 130
    except Exception as error:
        if (problem := resource_problem(error)) and not debug:
            print(f"error: {message_of(problem)}", file=sys.stderr)
            return problem.exit_code
        traceback.print_exc()
        if place := _place_in_plugin(sys.exc_info()[2]):
            print(f"the error is in your plugin: {place}", file=sys.stderr)
        return 1


def _place_in_plugin(trace: TracebackType | None) -> str:
    """File and line of the innermost call outside of the toolkit and of installed packages."""
    calls = [call for call in traceback.extract_tb(trace) if "site-packages" not in call.filename]
    standard = os.path.dirname(os.__file__)
    for call in reversed(calls):
        path = os.path.abspath(call.filename)
        inside = path.startswith((str(PACKAGE_DIR), standard)) or "run_talkingface" in path
        if os.path.isfile(path) and not inside and not path.endswith("__main__.py"):
            return f"{path}, line {call.lineno}: {call.line}"
    return ""


def _dispatch(args: Arguments) -> int:
    if "help" in args.options:
        print(help_text(args.options["help"]), end="")
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
    command = import_target(f"talkingface.{_ACTIONS[action]}", "cli")
    if action == "prepare":
        return command(args.options, args.config)
    return command(args.options, args.config, args.config_files)


# Commands other than an ordinary run, and their functions; of several given ones the first of this
# order is run.
_ACTIONS = {
    "prepare": "quick_start.prepare:prepare_videos",
    "infer": "quick_start.infer:infer_command",
    "live": "quick_start.live:live_command",
    "fetch": "quick_start.fetch:fetch",
    "recipe": "quick_start.recipe:run_recipe",
    "evaluate_videos": "quick_start.score_videos:score_videos",
    "benchmark": "comparison.run:benchmark",
    "status": "quick_start.status:status",
    "export": "quick_start.export:export",
    "web": "web.app:web",
}
# Option -> actions that it belongs to.
_OWNERS = {
    "videos": ("prepare",),
    "audio": ("infer", "live"),
    "source": ("infer", "live"),
    "driver": ("infer",),
    "checkpoint": ("infer", "live", "export"),
    "output": ("infer", "live", "evaluate_videos", "benchmark", "export"),
    "host": ("web",),
    "port": ("web",),
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
        raise _incomplete(args)
    cfg = load_config(model, dataset, config_files=args.config_files, cli=args.config)
    if "print_config" in args.flags:
        from talkingface.config.reference import print_config

        print(print_config(cfg))
        return 0
    from talkingface.quick_start.quick_start import fitting_preset, run_config

    if preset := fitting_preset(cfg):
        options = {"config_files": args.config_files, "cli": args.config, "preset": preset}
        cfg = load_config(model, dataset, **options)
        cfg.notes.insert(0, f"no GPU: preset {preset} is used (--preset=none: the full settings)")
    run_config(cfg, dry_run="dry_run" in args.flags, command=sys.argv)
    return 0


def _incomplete(args: Arguments) -> ConfigError:
    """The error of a command without a model or dataset: an unknown key, or the names there are."""
    from talkingface.config.reference import unknown_key

    registry = get_registry(args.config.get("plugin_path"))
    keys = [key for key in args.config if key not in _TEXT_KEYS]
    if unknown := keys and unknown_key(registry, keys):
        return ConfigError(f"{unknown} See {program()} --help.")
    missing = [name for name in ("model", "dataset") if not args.config.get(name)]
    verb = "are" if len(missing) > 1 else "is"
    names = "\n".join(f"  --{n}: {', '.join(registry.names(n))}" for n in missing)
    text = " and ".join(f"--{name}" for name in missing)
    return ConfigError(f"{text} {verb} missing. Choose from\n{names}\n{program()} list says more.")


def _listing(args: Arguments) -> str:
    from talkingface.components.zoo import zoo_rows

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
    table("Zoo (weights that ship with the toolkit)", zoo_rows())
    rows = []
    for entry in registry.entries("metric").values():
        outputs = entry.meta.get("outputs") or {}
        notes = "; ".join(f"{k}: {arrows.get(v.get('direction'), '')}" for k, v in outputs.items())
        rows.append((entry.name, f"{entry.summary} [{notes}]"))
    table("Metrics", rows)
    return "\n".join(lines)
