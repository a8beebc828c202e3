"""Pages of the site that come from the code: a hook of mkdocs (mkdocs.yml)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from talkingface.commands import COMMANDS, help_text  # noqa: E402
from talkingface.config.config import iter_fields, load_config  # noqa: E402
from talkingface.config.reference import type_name  # noqa: E402
from talkingface.registry import get_registry  # noqa: E402

# Files outside of docs that are pages of the site.
COPIED = {
    "README.md": "index.md",
    "checkpoints/README.md": "weights.md",
    "talkingface/data/synthetic/NOTICE.md": "notice.md",
}


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files outside of docs lead to their page, or become plain text."""
    place = {target: source for source, target in COPIED.items()}.get(page.file.src_uri)
    folder = (TOP / place).parent if place else (TOP / "docs" / page.file.src_uri).parent

    def moved(match: re.Match) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or not target:
            return match[0]
        file = (folder / target).resolve()
        if not file.is_relative_to(TOP):
            return match[0]
        name = file.relative_to(TOP).as_posix()
        if name in COPIED:
            return f"[{text}]({_relative(page, COPIED[name])}{anchor})"
        if name.startswith("docs/") and file.is_file():
            return f"[{text}]({_relative(page, name.removeprefix('docs/'))}{anchor})"
        return text if not name.startswith("docs/") else match[0]

    return re.sub(r"\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)", moved, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Names with a role of Sphinx, which Markdown does not know, become plain code."""
    role = r":(?:attr|class|data|func|meth|mod):<code>(~?)([^<]*)</code>"
    return re.sub(
        role, lambda m: f"<code>{m[2].rsplit('.')[-1] if m[1] else m[2].lstrip('.')}</code>", html
    )


def _relative(page: Any, target: str) -> str:
    return "../" * page.file.src_uri.count("/") + target


def pages() -> dict[str, str]:
    """Path below docs -> Markdown."""
    copied = {page: (TOP / name).read_text("utf-8") for name, page in COPIED.items()}
    return {
        **copied,
        "reference/python.md": "# Python\n\n`import talkingface`\n\n::: talkingface.api\n",
        "reference/commands.md": "\n".join(_commands()),
        "reference/settings.md": "\n".join(_settings()),
        "reference/models.md": "\n".join(_models()),
        "reference/metrics.md": "\n".join(_metrics()),
        "reference/datasets.md": "\n".join(_datasets()),
    }


def _commands() -> Iterator[str]:
    yield "# Commands\n"
    for command in ("main", *COMMANDS):
        title = "Overview" if command == "main" else command
        yield f"## {title}\n\n```text\n{help_text(command)}```\n"


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def _keys(fields: dict[str, Any]) -> Iterator[str]:
    yield _row("key", "type", "default", "meaning")
    yield "|---|---|---|---|"
    for name, field in fields.items():
        default = "" if field.default_factory else f"`{field.default}`"
        yield _row(f"`{name}`", type_name(field.annotation), default, field.description)
    yield ""


def _settings() -> Iterator[str]:
    """All keys, those of every run first."""
    registry = get_registry()
    everywhere = dict(iter_fields(load_config("SyncNet", "GRID").schema))
    of_models = {}
    for entry in registry.entries("model").values():
        datasets = registry.entries("dataset").values()
        dataset = next(d.name for d in datasets if registry.supports(entry, d))
        of_models[entry.name] = dict(iter_fields(load_config(entry.name, dataset).schema))
    common = {k: v for k, v in everywhere.items() if all(k in own for own in of_models.values())}
    yield "# Settings\n\nDefaults of the code; YAML files in `properties` may set others.\n"
    yield "## Of every run\n"
    yield from _keys(common)
    seen: dict[str, str] = {}
    for model, fields in of_models.items():
        own = {k: v for k, v in fields.items() if k not in common}
        text = "\n".join(_keys(own))
        yield f"## {model}\n"
        yield f"As for {seen[text]}.\n" if text in seen else text
        seen.setdefault(text, model)
    for entry in registry.entries("dataset").values():
        if entry.target("config"):
            models = registry.entries("model").values()
            model = next(m.name for m in models if registry.supports(m, entry))
            fields = dict(iter_fields(load_config(model, entry.name).schema))
            own = {k: v for k, v in fields.items() if k not in {**common, **of_models[model]}}
            yield f"## Dataset {entry.name}\n"
            yield from _keys(own)


def _models() -> Iterator[str]:
    registry = get_registry()
    yield "# Models\n"
    for entry in registry.entries("model").values():
        datasets = [d.name for d in registry.entries("dataset").values()
                    if registry.supports(entry, d)]  # fmt: skip
        yield f"## {entry.name}\n\n{entry.summary}\n"
        if entry.meta.get("paper"):
            yield f"* paper: {entry.meta['paper']}"
        yield f"* presets: {', '.join(entry.presets) or 'none'}"
        yield f"* datasets: {', '.join(datasets)}\n"


def _metrics() -> Iterator[str]:
    yield "# Metrics\n"
    for entry in get_registry().entries("metric").values():
        yield f"## {entry.name}\n\n{entry.summary}\n\nReference: {entry.meta.get('reference')}\n"
        yield _row("output", "better", "unit")
        yield "|---|---|---|"
        for name, output in (entry.meta.get("outputs") or {}).items():
            yield _row(f"`{name}`", output.get("direction"), output.get("unit"))
        yield ""
        if entry.meta.get("params"):
            yield _row("parameter", "default")
            yield "|---|---|"
            for name, value in entry.meta["params"].items():
                yield _row(f"`{name}`", f"`{value}`")
            yield ""


def _datasets() -> Iterator[str]:
    yield "# Datasets\n"
    yield _row("dataset", "content", "licence")
    yield "|---|---|---|"
    for entry in get_registry().entries("dataset").values():
        yield _row(entry.name, entry.summary, entry.meta.get("licence") or "")
