"""Commands such as ``talkingface infer``: short forms of the options of the runner."""

from __future__ import annotations

from collections.abc import Sequence

from talkingface.errors import ConfigError
from talkingface.utils.paths import PACKAGE_DIR, program
from talkingface.utils.suggest import did_you_mean

# Command -> the option that it stands for; one that ends in '=' takes the word after it.
COMMANDS = {
    "train": "",
    "infer": "--infer",
    "prepare": "--prepare",
    "evaluate": "--stages=evaluate",
    "benchmark": "--benchmark",
    "recipe": "--recipe=",
    "live": "--live",
    "web": "--web",
    "status": "--status",
    "list": "--list",
    "config": "--print_config",
    "explain": "--explain=",
    "fetch": "--fetch=",
    "export": "--export",
}


def spelled_out(argv: Sequence[str]) -> list[str]:
    """Replace a leading command by options; arguments without one stay as they are.

    Raises:
        ConfigError: there is no such command, or its word is missing.
    """
    words = list(argv)
    if not words or words[0].startswith("-"):
        return words
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        raise ConfigError(
            f"'{command}' is no command and no option.{did_you_mean(command, COMMANDS)} Commands: "
            f"{', '.join(COMMANDS)}; options are written --key=value, and values with spaces are "
            "quoted."
        )
    option = COMMANDS[command]
    if {"--help", "-h"} & set(rest):
        return [f"--help={command}"]
    if option.endswith("="):
        if not rest or rest[0].startswith("-"):
            raise ConfigError(f"'{command}' needs a name: see {program()} {command} --help")
        option, rest = option + rest[0], rest[1:]
    if command == "evaluate" and any(word.split("=")[0] == "--videos" for word in rest):
        option = ""
        rest = [f"--evaluate_{w[2:]}" if w.split("=")[0] == "--videos" else w for w in rest]
    return [option, *rest] if option else rest


def help_text(command: str = "main") -> str:
    """The help of a command, or the overview.

    Raises:
        ConfigError: there is no such command.
    """
    text = (PACKAGE_DIR / "help.txt").read_text("utf-8").replace("{program}", program())
    parts = [part.split("\n", 1) for part in text.removeprefix("# ").split("\n# ")]
    sections = {title: body for title, body in parts}
    if command not in sections:
        raise ConfigError(f"There is no command '{command}'.{did_you_mean(command, sections)}")
    return sections[command].strip("\n") + "\n"
