"""``--fetch``: download a known weight file into ``checkpoints/`` and check it."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talkingface.errors import ConfigError, EnvironmentProblem, WeightsError
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import SHIPPED, atomic, resolve, shown
from talkingface.utils.suggest import did_you_mean
from talkingface.utils.yaml_files import load_yaml

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without any answer


def read_manifest() -> dict[str, dict[str, Any]]:
    """What is known of weight files, by their path below ``checkpoints/``."""
    return load_yaml(SHIPPED / "checkpoints" / "manifest.yaml")[0]


def fetch(names: str, config: Mapping[str, Any]) -> int:
    """Run the action; returns the exit status.

    Args:
        names: files of the manifest, or metrics and models that use them, separated by commas.

    Raises:
        ConfigError: a name that the manifest does not know, or that has no address.
        EnvironmentProblem: no network.
        WeightsError: what came is not the file that the manifest describes.
    """
    setup_logging(str(config.get("log_level", "info")))
    manifest = read_manifest()
    folder = resolve(str(config.get("weights_dir", "checkpoints")))
    for name in dict.fromkeys(_chosen(names, manifest)):
        _fetch_one(name, manifest[name], folder / name, str(config.get("show_progress", "auto")))
    return 0


def _chosen(names: str, manifest: Mapping[str, Mapping[str, Any]]) -> list[str]:
    chosen: list[str] = []
    for part in (word.strip() for word in names.split(",")):
        files = [
            name
            for name, facts in manifest.items()
            if part in (name, Path(name).name)
            or part.lower() in {user.lower() for user in facts["used_by"]}
        ]
        if not files:
            raise ConfigError(
                f"--fetch={part}: not in checkpoints/manifest.yaml.{did_you_mean(part, manifest)} "
                f"It knows: {', '.join(manifest)}"
            )
        within = [name for name in files if manifest[name].get("url")]
        for name in set(files) - set(within):
            log.warning("%s has no address for a download: %s", name, manifest[name]["origin"])
        if not within:
            raise ConfigError(f"--fetch={part}: get it by hand from {manifest[files[0]]['origin']}")
        chosen += within
    return chosen


def _fetch_one(name: str, facts: Mapping[str, Any], path: Path, show: str) -> None:
    if path.is_file():
        log.info("%s is there: %s", shown(path), check(path.read_bytes(), name, facts))
        return
    log.info("%s from %s (licence: %s)", name, facts["url"], facts["licence"])
    content = bytearray()
    try:
        request = urllib.request.Request(facts["url"], headers={"User-Agent": "talkingface"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            size = int(answer.headers.get("Content-Length") or 0) or None
            options = {"unit": "B", "unit_scale": True, "desc": path.name, "show": show}
            with progress(total=size, **options) as bar:
                while part := answer.read(_CHUNK):
                    content += part
                    bar.update(len(part))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise EnvironmentProblem(
            f"{facts['url']} cannot be reached ({error}). Download it elsewhere and put it "
            f"at {path}"
        ) from error
    if size and len(content) != size:
        raise EnvironmentProblem(f"{facts['url']}: the connection broke off; fetch again")
    verdict = check(bytes(content), name, facts)
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    log.info("%s: %s", shown(path), verdict)


def check(content: bytes, name: str, facts: Mapping[str, Any]) -> str:
    """Compare a file with the manifest; tells what was compared.

    Raises:
        WeightsError: another size or checksum.
    """
    digest = hashlib.sha256(content).hexdigest()
    wanted = facts.get("sha256") or facts.get("sha256_begins")
    if facts.get("bytes") and len(content) != facts["bytes"]:
        raise WeightsError(f"{name}: {len(content)} bytes instead of {facts['bytes']}")
    if wanted and not digest.startswith(str(wanted)):
        raise WeightsError(
            f"{name}: its SHA-256 is {digest}, not {wanted}...; the file was changed or is damaged"
        )
    if wanted:
        return f"SHA-256 {digest} as expected"
    return f"SHA-256 {digest}; the manifest knows none, compare it with the publisher's"
