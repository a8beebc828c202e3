"""Checks of merged settings; messages contain key, value, source and the most similar name."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from talkingface.config.merge import source_of
from talkingface.config.schema import Section
from talkingface.errors import ConfigError
from talkingface.registry import Registry
from talkingface.utils.suggest import did_you_mean


def retired_keys(schema: type[BaseModel]) -> dict[str, str]:
    """Dotted names of the keys in ``retired`` of the sections, with what became of them."""
    kinds = {name: info.annotation for name, info in schema.model_fields.items()}
    sections = {n: k for n, k in kinds.items() if isinstance(k, type) and issubclass(k, Section)}
    return {
        f"{n}.{key}": text for n, kind in sections.items() for key, text in kind.retired.items()
    }


def validation_message(
    error: ValidationError,
    provenance: Mapping[str, str],
    known: list[str],
    retired: Mapping[str, str],
) -> str:
    """The text of pydantic's errors, one line for each wrong setting."""
    lines = []
    for item in error.errors():
        # In pydantic's 'loc', tuple indices and union branches follow the field names.
        loc = [str(part) for part in item["loc"]]
        while loc and item["type"] != "extra_forbidden" and ".".join(loc) not in known:
            loc.pop()
        key = ".".join(loc) or ".".join(str(part) for part in item["loc"])
        origin = source_of(provenance, key)
        if item["type"] == "extra_forbidden":
            scope = [k for k in known if k.startswith(key.rsplit(".", 1)[0] + ".")] or known
            hint = did_you_mean(key, scope) or did_you_mean(key, known)
            hint = f" {retired[key]}" if key in retired else hint
            lines.append(
                f"unknown key '{key}' ({origin}).{hint}"
                " Explain a key with --explain=<key>, see all with --print_config."
            )
        else:
            given = item.get("input")
            lines.append(f"'{key}' = {given!r} ({origin}): {item['msg']}")
    unique = list(dict.fromkeys(lines))
    return "\n  ".join([title_of(len(unique)), *unique])


def title_of(count: int) -> str:
    return "1 setting is wrong:" if count == 1 else f"{count} settings are wrong:"


def check_values(values: Section, registry: Registry, provenance: Mapping[str, str]) -> list[str]:
    """Checks that need more than one key or the registry; metric names become canonical."""
    problems = []
    stages = ("preprocess", "train", "evaluate")
    for stage in values.stages:
        if stage not in stages:
            problems.append(f"stages: unknown stage '{stage}'.{did_you_mean(stage, stages)}")
    for name in ("metrics", "metric_params"):
        canonical = {}
        for metric in getattr(values, name):
            try:
                canonical[metric] = registry.entry("metric", metric).name
            except ConfigError as error:
                sources = (
                    source
                    for key, source in provenance.items()
                    if key == name or f"{key}.".startswith(f"{name}.{metric}.")
                )
                problems.append(f"{name} ({next(sources, 'default')}): {error}")
        if name == "metrics":
            values.metrics = [canonical.get(item, item) for item in values.metrics]
        else:
            values.metric_params = {
                canonical.get(key, key): value for key, value in values.metric_params.items()
            }
    problems += _check_metric_settings(values, registry, provenance)
    baselines = [*type(values).model_fields["baselines"].default, "silent_audio"]
    for name in values.baselines:
        if name not in baselines:
            problems.append(f"baselines: unknown row '{name}'.{did_you_mean(name, baselines)}")
    if abs(sum(values.make_split) - 1) > 1e-6 or min(values.make_split) < 0:
        problems.append(f"make_split: the three shares must add up to 1, got {values.make_split}")
    return problems


def _check_metric_settings(
    values: Section, registry: Registry, provenance: Mapping[str, str]
) -> list[str]:
    """Unknown metric parameters and an unusable ``valid_metric``."""
    problems = []
    metrics = registry.entries("metric")
    for metric, params in values.metric_params.items():
        known = (metrics[metric].meta.get("params") or {}) if metric in metrics else params
        for key in params:
            if key not in known:
                dotted = f"metric_params.{metric}.{key}"
                problems.append(
                    f"unknown key '{dotted}' ({provenance.get(dotted, 'default')})."
                    f"{did_you_mean(key, known)} Keys of {metric}: {', '.join(known) or 'none'}."
                )
    criterion = values.valid_metric
    if "train" in values.stages and criterion.split("/")[0] != "loss":
        chosen = [metrics[name] for name in values.metrics if name in metrics]
        goals = {
            key: spec.get("direction")
            for entry in chosen
            for key, spec in (entry.meta.get("outputs") or {}).items()
        }
        outputs = [key for key, goal in goals.items() if goal in ("up", "down")]
        if criterion not in outputs:
            goal = {"real": "the real video's value", "zero": "zero"}.get(
                goals.get(criterion), "neither a large nor a small value"
            )
            why = f"its goal is {goal}, so it cannot rank checkpoints; " * (criterion in goals)
            problems.append(
                f"valid_metric = '{criterion}' ({provenance.get('valid_metric', 'default')}): "
                f"{why}choose loss, loss/<part>, or an output of the metrics that should rise or "
                f"fall ({', '.join(outputs)})." + ("" if why else did_you_mean(criterion, outputs))
            )
    return problems
