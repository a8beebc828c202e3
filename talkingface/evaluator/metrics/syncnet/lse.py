"""LSE-D, LSE-C and AV offset of a SyncNet (official code), under the names of Wav2Lip."""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from talkingface.components.runs import newest_checkpoint
from talkingface.components.zoo import NAME as ZOO
from talkingface.components.zoo import has_entry, is_in_zoo, is_zoo, zoo_file
from talkingface.data.face.boxes import face_boxes
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.data.quality import RATE, sound_flaw
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import MAX_LENGTH_GAP, ClipPair, missing_faces
from talkingface.evaluator.metrics.landmark_distance import found
from talkingface.evaluator.metrics.syncnet.sync_score import (
    FPS,
    crops,
    lip_features,
    load_syncnet,
    score,
    sound_features,
)
from talkingface.model.audio_driven_talkingface.syncnet.syncnet_networks import SyncNet
from talkingface.utils.paths import resolve

OFFICIAL = "syncnet_v2.model"
MODEL = "SyncNet"
_HELP = (
    f"put {OFFICIAL} into checkpoints/ (checkpoints/manifest.yaml has its source), set "
    "metric_params.LSE.weights, or train one with --model=SyncNet"
)


@lru_cache(maxsize=2)
def _network(path: Path, stamp: float) -> SyncNet:
    return load_syncnet(path)


@lru_cache(maxsize=256)
def _sound(weights: Path, sound: Path, _stamp: float) -> tuple[np.ndarray, int, str | None]:
    """Embeddings of a sound, its number of samples and its flaw; cached for all rows."""
    wave = load_audio(sound, RATE)
    if not np.any(wave):
        return np.zeros((0, 1), np.float32), len(wave), "the sound is silent"
    network = _network(weights, weights.stat().st_mtime)
    return sound_features(network, wave), len(wave), sound_flaw(wave)


def same_sound(first: Path, second: Path) -> bool:
    """Whether the loudness of two files correlates (same speech); True if one has no sound."""
    if not (probe(first).has_audio and probe(second).has_audio):
        return True
    waves = [load_audio(path, RATE) for path in (first, second)]
    count = min(map(len, waves)) // 320
    loudness = [np.sqrt((w[: count * 320].reshape(count, 320) ** 2).mean(1)) for w in waves]
    if count < 2 or min(part.std() for part in loudness) == 0:
        return True
    return float(np.corrcoef(*loudness)[0, 1]) > 0.8


class LSE(Metric):
    """Distance, confidence and time offset of lips and sound.

    The network is, in this order, ``weights``, the official file in ``checkpoints/``, the best
    checkpoint of the newest SyncNet run, or the one of the zoo. Its name is part of the definition,
    since the values of two networks are not comparable.
    """

    uses_frames = False
    revision = 2  # undefined for sounds that are too short

    @cached_property
    def path(self) -> Path | None:
        """The weights file of the network; None when there is none."""
        saved = resolve(self.cfg.checkpoint_dir if self.cfg else "saved")
        named = self.params["weights"]
        if named and is_zoo(str(named)):
            return zoo_file(str(named), MODEL)
        own = self.weights_file(OFFICIAL, key="weights") or newest_checkpoint(saved, MODEL)
        return own or (zoo_file(ZOO, MODEL) if has_entry(MODEL) else None)

    @cached_property
    def network_name(self) -> str:
        """Name of the official file, or run and checksum of another one."""
        if self.path is None:
            return "none"
        if self.path.name == OFFICIAL:
            return OFFICIAL
        if is_in_zoo(self.path):
            return f"zoo/{self.path.parent.name}:{self.checksum(self.path)}"
        run = self.path.parent.parent.name if self.path.suffix == ".ckpt" else self.path.name
        return f"{run}:{self.checksum(self.path)}"

    def missing(self) -> str | None:
        if self.path is None:
            return f"needs a SyncNet: {_HELP}"
        if not self.path.is_file():
            return f"metric_params.LSE.weights: {self.path} does not exist"
        return None

    def definition(self) -> str:
        return f"{self.name}[network={self.network_name},{self.settings('weights')}]"

    def finish(self, clip: ClipPair) -> dict[str, float]:
        sound = clip.generated if self.params["sound"] == "own" else clip.sound
        if sound is None or not probe(sound).has_audio:
            return self.undefined("no sound in " + ("the video" if sound else "either video"))
        network = _network(self.path, self.path.stat().st_mtime)
        length = round(clip.n_frames / clip.fps * FPS)  # of the compared part
        boxes = None
        if self._tracked(clip.generated):
            marks = clip.generated_meshes(FPS)[:length]
            share = float(found(marks).mean()) if len(marks) else 0.0
            if reason := missing_faces("LSE", clip, share, "in the generated video"):
                return self.undefined(reason)
            boxes = face_boxes(marks, fps=FPS)
        frames = islice(read_frames(clip.generated, fps=FPS), length)
        lips = lip_features(network, crops(frames, boxes, network.image_size))
        sounds, samples, flaw = _sound(self.path, sound, sound.stat().st_mtime)
        if not len(sounds) and flaw:
            return self.undefined(flaw)
        seconds = samples / RATE, length / FPS
        if seconds[0] < (1 - MAX_LENGTH_GAP) * seconds[1]:
            return self.undefined(
                f"the sound has {seconds[0]:.1f} s and the video {seconds[1]:.1f} s; LSE of the "
                "common part would be that of a shorter clip"
            )
        if flaw:
            clip.notes.append(f"LSE: {flaw}")
        if sound != clip.generated and not same_sound(sound, clip.generated):
            clip.notes.append(
                "LSE: the generated video's sound differs from the clip's, which is used "
                "(metric_params.LSE.sound=own uses that of the video)"
            )
        # One window fewer than possible, as in the official code.
        count = min(len(lips) - 1, len(sounds), samples // 640 - 5)
        if count < 1:
            return self.undefined("shorter than six frames")
        if count < 45:
            clip.notes.append(
                "LSE: fewer than 50 frames; the values are noisy and LSE_C is too high, since it "
                "takes the best of all shifts"
            )
        vshift = self.params["vshift"]
        result = score(lips[:count], sounds[:count], vshift, self.params["pad"])
        offset = result.offset
        if abs(offset) == vshift:
            clip.notes.append(f"LSE: no offset found within {vshift} frames")
        return {
            "LSE_D": result.distance,
            "LSE_C": result.confidence,
            "AV_offset": float(offset),
            "AV_offset_abs": float(abs(offset)),
        }

    def _tracked(self, video: Path) -> bool:
        """Whether the face is tracked and cropped; ``auto``: not in square videos up to 256 px."""
        if self.params["crop"] != "auto":
            return self.params["crop"] == "track"
        info = probe(video)
        return not (info.width == info.height and info.width <= 256)
