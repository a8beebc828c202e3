"""YAML reader for all files and for values on the command line.

It is PyYAML's safe loader with a smaller dialect: ``1e-4`` is a float, only ``true``/``false`` are
booleans, there are no octal or sexagesimal numbers and no dates, ``None`` is null, a repeated key
is an error. Tags that build Python objects are rejected.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from talkingface.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Safe loader whose implicit types are replaced below."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag == "tag:yaml.org,2002:merge"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_IMPLICIT = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
    ("null", r"^(?:~|null|Null|NULL|None|)$", ["~", "n", "N", ""]),
)
for _name, _pattern, _first in _IMPLICIT:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), list(_first))


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    own = [key_node for key_node, _ in node.value]
    loader.flatten_mapping(node)  # puts the keys of '<<: *anchor' first, so own keys replace them
    mapping: dict[Any, Any] = {}
    seen = set()
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float, bool)):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a string, number or boolean", key_node.start_mark
            )
        if key_node in own:
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node), 10)
)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_yaml(text: str, source: str = "<text>") -> Any:
    """Parse one YAML document.

    Args:
        text: the document, or one scalar or flow collection such as ``[LMD, NIQE]``.
        source: shown in errors, as ``source:line:column``.

    Raises:
        ConfigError: on a syntax error, a repeated key or a tag that would build an object.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ConfigError(f"{source}: the YAML is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError(f"{where}: not valid YAML: {problem}") from error


def key_lines(text: str) -> dict[str, int]:
    """Line number (from 1) of every dotted key of a YAML mapping, for messages and provenance."""
    lines: dict[str, int] = {}

    def walk(node: yaml.Node, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                dotted = f"{prefix}{key_node.value}"
                lines[dotted] = key_node.start_mark.line + 1
                walk(value_node, dotted + ".")

    root = yaml.compose(text, Loader=_Loader)
    if root is not None:
        walk(root, "")
    return lines


def load_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a YAML file that holds one mapping.

    Returns:
        The mapping (empty for an empty file) and the line of every dotted key.

    Raises:
        ConfigError: file missing, not UTF-8, not valid, or not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: this configuration file does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a UTF-8 text file: {error}") from error
    data = parse_yaml(text, str(path))
    if data is None:
        return {}, {}
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise ConfigError(f"{path}: must contain 'key: value' lines, but contains a {kind}")
    return data, key_lines(text)


def parse_value(text: str) -> Any:
    """A value typed on the command line: a scalar, or a flow collection such as ``[LMD, NIQE]``.

    Text that is no number, boolean or null stays as typed, so that paths may contain ``#``, ``:``
    and blanks without quotes.
    """
    stripped = text.strip()
    if stripped[:1] in ("[", "{", '"', "'"):
        return parse_yaml(stripped, "command line")
    tag = _Loader("").resolve(yaml.ScalarNode, stripped, (True, False))
    return text if tag == "tag:yaml.org,2002:str" else parse_yaml(stripped, "command line")
