"""``--fetch``: download a weights file of the manifest into ``checkpoints/`` and check it."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from talkingface.errors import ConfigError, EnvironmentProblem, WeightsError
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import SHIPPED, atomic, resolve, shown
from talkingface.utils.suggest import did_you_mean
from talkingface.utils.yaml_files import load_yaml

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a response


def read_manifest() -> dict[str, dict[str, Any]]:
    """Entries of ``checkpoints/manifest.yaml``, by path below ``checkpoints/``."""
    return load_yaml(SHIPPED / "checkpoints" / "manifest.yaml")[0]


def fetch(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: Sequence[str] = ()
) -> int:
    """Run the action; returns the exit status.

    Option: ``fetch`` (files of the manifest, or metrics and models that use them, separated by
    commas).

    Raises:
        ConfigError: a name is not in the manifest, or its file has no URL.
        EnvironmentProblem: the download failed.
        WeightsError: size or SHA-256 of the file differs from the manifest.
    """
    setup_logging(str(config.get("log_level", "info")))
    manifest = read_manifest()
    folder = resolve(str(config.get("weights_dir", "checkpoints")))
    for name in dict.fromkeys(_chosen(options["fetch"], manifest)):
        _fetch_one(name, manifest[name], folder / name, str(config.get("show_progress", "auto")))
    return 0


def _chosen(names: str, manifest: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the manifest's files with a URL for comma-separated files, metrics and models."""
    chosen: list[str] = []
    for part in (word.strip() for word in names.split(",")):
        files = [
            name
            for name, entry in manifest.items()
            if part in (name, Path(name).name)
            or part.lower() in {user.lower() for user in entry["used_by"]}
        ]
        if not files:
            raise ConfigError(
                f"--fetch={part}: not in checkpoints/manifest.yaml.{did_you_mean(part, manifest)} "
                f"Known files: {', '.join(manifest)}"
            )
        downloadable = [name for name in files if manifest[name].get("url")]
        for name in set(files) - set(downloadable):
            log.warning("%s has no URL for a download: %s", name, manifest[name]["origin"])
        if not downloadable:
            raise ConfigError(f"--fetch={part}: get it by hand from {manifest[files[0]]['origin']}")
        chosen += downloadable
    return chosen


def _fetch_one(name: str, entry: Mapping[str, Any], path: Path, show: str) -> None:
    if path.is_file():
        log.info("%s exists already: %s", shown(path), check(path.read_bytes(), name, entry))
        return
    log.info("%s from %s (licence: %s)", name, entry["url"], entry["licence"])
    content = bytearray()
    try:
        request = urllib.request.Request(entry["url"], headers={"User-Agent": "talkingface"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            size = int(response.headers.get("Content-Length") or 0) or None
            options = {"unit": "B", "unit_scale": True, "desc": path.name, "show": show}
            with progress(total=size, **options) as bar:
                while part := response.read(_CHUNK):
                    content += part
                    bar.update(len(part))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise EnvironmentProblem(
            f"{entry['url']} cannot be reached ({error}). Download it elsewhere and put it "
            f"at {path}"
        ) from error
    if size and len(content) != size:
        raise EnvironmentProblem(f"{entry['url']}: the connection was interrupted; fetch again")
    verdict = check(bytes(content), name, entry)
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    log.info("%s: %s", shown(path), verdict)


def check(content: bytes, name: str, entry: Mapping[str, Any]) -> str:
    """Compare a file with its manifest entry; returns a description of the result.

    Raises:
        WeightsError: another size or SHA-256.
    """
    digest = hashlib.sha256(content).hexdigest()
    expected = entry.get("sha256") or entry.get("sha256_begins")
    if entry.get("bytes") and len(content) != entry["bytes"]:
        raise WeightsError(f"{name}: {len(content)} bytes instead of {entry['bytes']}")
    if not expected:
        return f"SHA-256 {digest}; the manifest has none, compare it with the publisher's"
    if not digest.startswith(str(expected)):
        raise WeightsError(
            f"{name}: its SHA-256 is {digest}, not {expected}...; the file was changed or is "
            "damaged"
        )
    return f"SHA-256 {digest} as expected"
