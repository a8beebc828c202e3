"""LSE-D, LSE-C and the AV offset by a SyncNet (official code; names of Wav2Lip's evaluation)."""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from talkingface.data.face.boxes import face_boxes
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair, missing_faces
from talkingface.evaluator.metrics.syncnet.sync_score import (
    FPS,
    crops,
    lip_features,
    load_syncnet,
    score,
    sound_features,
)
from talkingface.model.audio_driven_talkingface.syncnet.syncnet_networks import SyncNet

OFFICIAL = "syncnet_v2.model"
_HELP = (
    f"put {OFFICIAL} into checkpoints/ (checkpoints/manifest.yaml says where it comes from), set "
    "metric_params.LSE.weights, or train one with --model=SyncNet"
)


@lru_cache(maxsize=2)
def _network(path: Path, stamp: float) -> SyncNet:
    return load_syncnet(path)


@lru_cache(maxsize=256)
def _sound(weights: Path, sound: Path, _stamp: float) -> tuple[np.ndarray, int]:
    """Embeddings of a sound and its samples, 0 when silent; all rows of a table share them."""
    wave = load_audio(sound, 16000)
    if not np.any(wave):
        return np.zeros((0, 1), np.float32), 0
    return sound_features(_network(weights, weights.stat().st_mtime), wave), len(wave)


def same_sound(first: Path, second: Path) -> bool:
    """Whether two files hold the same speech, by their loudness; True when one has no sound."""
    if not (probe(first).has_audio and probe(second).has_audio):
        return True
    waves = [load_audio(path, 16000) for path in (first, second)]
    count = min(map(len, waves)) // 320
    loudness = [np.sqrt((w[: count * 320].reshape(count, 320) ** 2).mean(1)) for w in waves]
    if count < 2 or min(part.std() for part in loudness) == 0:
        return True
    return float(np.corrcoef(*loudness)[0, 1]) > 0.8


class LSE(Metric):
    """Distance and confidence of lips and sound, and how far apart they are.

    The network is, in this order, ``weights``, the official file in ``checkpoints/``, or the best
    checkpoint of the newest SyncNet trained here. Its name is part of the definition: numbers of
    two networks do not compare.
    """

    uses_frames = False

    @cached_property
    def path(self) -> Path | None:
        """The weights that are used."""
        from talkingface.components.runs import newest_checkpoint
        from talkingface.utils.paths import resolve

        if self.params["weights"]:
            given = self.cfg.weights_path(self.params["weights"]) if self.cfg else None
            return given or Path(self.params["weights"])
        saved = resolve(self.cfg.checkpoint_dir if self.cfg else "saved")
        return self.weights_file(OFFICIAL) or newest_checkpoint(saved, "SyncNet")

    @cached_property
    def network_name(self) -> str:
        """Official file, or run and checksum of one's own."""
        if self.path is None:
            return "none"
        if self.path.name == OFFICIAL:
            return OFFICIAL
        run = self.path.parent.parent.name if self.path.suffix == ".ckpt" else self.path.name
        return f"{run}:{self.checksum(self.path)}"

    def missing(self) -> str | None:
        if self.path is None:
            return f"needs a SyncNet: {_HELP}"
        if not self.path.is_file():
            return f"metric_params.LSE.weights: {self.path} does not exist"
        return None

    def definition(self) -> str:
        shown = {key: value for key, value in self.params.items() if key != "weights"}
        text = ",".join(f"{key}={value}" for key, value in sorted(shown.items()))
        return f"{self.name}[network={self.network_name},{text}]"

    def finish(self, clip: ClipPair) -> dict[str, float]:
        if text := self.missing():
            return self.undefined(text)
        sound = clip.generated if self.params["sound"] == "own" else clip.sound
        if sound is None or not probe(sound).has_audio:
            return self.undefined("no sound in " + ("the video" if sound else "either video"))
        network = _network(self.path, self.path.stat().st_mtime)
        length = round(clip.n_frames / clip.fps * FPS)  # as long as what the others compare
        boxes = None
        if self._tracked(clip.generated):
            marks = clip.generated_meshes(FPS)[:length]
            found = np.isfinite(marks).all(axis=(1, 2)) if len(marks) else np.zeros(0, bool)
            share = float(found.mean()) if len(found) else 0.0
            if reason := missing_faces("LSE", clip, share, "in the generated video"):
                return self.undefined(reason)
            boxes = face_boxes(marks, fps=FPS)
        frames = islice(read_frames(clip.generated, fps=FPS), length)
        lips = lip_features(network, crops(frames, boxes, network.image_size))
        sounds, samples = _sound(self.path, sound, sound.stat().st_mtime)
        if not samples:
            return self.undefined("the sound is silent")
        if sound != clip.generated and not same_sound(sound, clip.generated):
            clip.notes.append(
                "LSE: the video's own sound differs from the clip's, which is compared "
                "(metric_params.LSE.sound=own takes its own)"
            )
        # One window fewer than there could be, as in the official code.
        count = min(len(lips) - 1, len(sounds), samples // 640 - 5)
        if count < 1:
            return self.undefined("shorter than six frames")
        if count < 46:
            clip.notes.append("LSE: fewer than 50 frames, the values are noisy")
        vshift = self.params["vshift"]
        found = score(lips[:count], sounds[:count], vshift, self.params["pad"])
        if abs(found.offset) == vshift:
            clip.notes.append(f"LSE: no offset found within {vshift} frames")
        return {
            "LSE_D": found.distance,
            "LSE_C": found.confidence,
            "AV_offset": float(found.offset),
        }

    def _tracked(self, video: Path) -> bool:
        """Whether the face is cropped out; small square videos show nothing else."""
        if self.params["crop"] != "auto":
            return self.params["crop"] == "track"
        info = probe(video)
        return not (info.width == info.height and info.width <= 256)
