"""From speech to the motion of a person: a whole recording at once, or chunk by chunk.

Both use the same networks and the same post-processing; with ``infer.motion.causal`` they give the
same motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from talkingface.data.dataprocess.lsp import motion as lsp
from talkingface.data.dataprocess.lsp.files import DATABASE, EYES_FROM, Person
from talkingface.data.dataprocess.lsp.motion import Motion
from talkingface.data.media.apc_mel import (
    MOTION_FPS,
    ROWS_PER_FRAME,
    SAMPLE_RATE,
    SLICE,
    checked_wave,
    encode,
    frame_count,
    mel_rows,
    row_start,
)
from talkingface.data.media.audio import load_audio
from talkingface.data.npz import read_npy
from talkingface.errors import DataError
from talkingface.model.audio_driven_talkingface.lsp.lsp_motion_networks import (
    POSE,
    Audio2FeatureNet,
    Audio2HeadposeNet,
    PoseGenerator,
    look_ahead,
)
from talkingface.model.layers.manifold import ManifoldProjection

if TYPE_CHECKING:
    from talkingface.model.layers.apc_networks import APCEncoder


@dataclass(frozen=True)
class PersonMotion:
    """Values that generation reads from the files of a person (official code).

    Attributes:
        mean_points: (73,3) to which the predicted displacements are added.
        rest: (73,3) mean face; its brows, nose and contour are used unchanged.
        eyes: (M,16,3) eye points of the training sequence, which is repeated.
        mean_trans: (3,) mean translation of the training sequence.
        shoulders: (18,3) camera units at translation ``shoulder_trans`` (3,), NaN on a side that
            is not drawn.
        scale, camera: see :class:`~talkingface.data.dataprocess.lsp.files.MotionFiles`.
    """

    mean_points: np.ndarray
    rest: np.ndarray
    eyes: np.ndarray
    mean_trans: np.ndarray
    shoulders: np.ndarray
    shoulder_trans: np.ndarray
    scale: float
    camera: np.ndarray

    @classmethod
    def read(cls, person: Person) -> PersonMotion:
        points, trans = person.points, person.trans
        first = min(EYES_FROM, len(points) - 1)
        row = min(1, len(trans) - 1)
        return cls(
            mean_points=person.mean_points.astype(np.float64),
            rest=points.mean(axis=0, dtype=np.float64),
            eyes=points[first:, lsp.EYES].astype(np.float64),
            mean_trans=trans.mean(axis=0, dtype=np.float64),
            shoulders=person.shoulders_3d[row].astype(np.float64),
            shoulder_trans=trans[row].astype(np.float64),
            scale=person.scale,
            camera=person.camera,
        )


def load_database(person: Person, network: APCEncoder, apc: str | None) -> Tensor:
    """Speech features of the person's clips; computed anew if the file is of another APC."""
    path = person.folder / DATABASE
    if path.is_file() and (apc is None or person.database_apc in (None, apc)):
        return torch.from_numpy(read_npy(path).astype(np.float32))
    rows = []
    for clip in map(person.clip, person.listed("train")):
        cached = clip.features_path(apc or "")
        if cached.is_file():
            rows.append(read_npy(cached))
        else:
            rows.append(encode(network, load_audio(clip.sound_path, SAMPLE_RATE)))
    if not rows:
        raise DataError(f"{path} with the speech features of the person is missing")
    return torch.from_numpy(np.concatenate(rows))


@dataclass
class SpeechMotion:
    """Networks and settings that turn speech into motion.

    Attributes:
        ahead: look-ahead of Audio2Feature and Audio2Headpose in frames.
        manifold: projection of the speech features; None: none.
        options: section ``infer`` of live_speech_portraits.
        sigma: factor on the standard deviations of sampled poses.
    """

    apc: APCEncoder
    audio2feature: Audio2FeatureNet
    audio2headpose: Audio2HeadposeNet
    ahead: tuple[int, int]
    manifold: ManifoldProjection | None
    person: PersonMotion
    options: Any
    sigma: float

    @property
    def device(self) -> torch.device:
        return next(self.apc.parameters()).device

    def paired(self, features: Tensor) -> Tensor:
        """Speech features (2n,H) -> projected, two rows per frame (n,2H)."""
        if self.manifold is not None:
            features = self.manifold(features)
        return features.reshape(-1, 2 * features.shape[1])

    def generate(self, wave: np.ndarray, seed: int = 0) -> Motion:
        """Motion of a whole recording (N,), 16 kHz mono."""
        return self.stream(seed).finish(wave)

    def compose(
        self, moves: np.ndarray, pose: np.ndarray, start: int, before: np.ndarray | None = None
    ) -> Motion:
        """Motion from smoothed displacements (n,73,3) and poses (n,6).

        Args:
            start: number of the first frame.
            before: (73,3) smoothed displacements of the frame before it.
        """
        person, post = self.person, self.options.motion
        count = len(moves)
        method, *factors = post.mouth_amp
        amplified = lsp.amplify_mouth(moves, str(method), tuple(factors), before)
        mouth = lsp.repair_lips(amplified + person.mean_points)
        points = np.repeat(person.rest[None], count, axis=0)
        moving = lsp.MOUTH25 if post.use_pred_jaw else lsp.LIPS
        points[:, moving] = mouth[:, moving]
        points[:, lsp.EYES] = person.eyes[(start + np.arange(count)) % len(person.eyes)]
        angles = pose[:, :3] + (180.0, 0.0, 0.0)
        trans = pose[:, 3:] + person.mean_trans
        landmarks = lsp.project(points, angles, trans, person.scale, person.camera)
        moved = post.shoulder_amp * (trans - person.shoulder_trans)
        shoulders = lsp.project_camera(person.shoulders + moved[:, None], person.camera)
        return Motion(landmarks, shoulders, points, np.concatenate([angles, trans], axis=1))

    def stream(self, seed: int = 0) -> MotionStream:
        """Motion of a sound that arrives in chunks."""
        return MotionStream(self, seed)


def _spread(points: Tensor) -> np.ndarray:
    """(n,75) to (n,73,3); the other points are 0."""
    values = points.cpu().numpy().astype(np.float64).reshape(-1, len(lsp.MOUTH25), 3)
    result = np.zeros((len(points), lsp.N_POINTS, 3))
    result[:, lsp.MOUTH25] = values
    return result


def _stacked(poses: list[Tensor]) -> np.ndarray:
    if not poses:
        return np.zeros((0, POSE))
    return torch.stack(poses)[:, :POSE].cpu().numpy().astype(np.float64)


class _Smoother:
    """Smoothing of values that arrive in chunks, or, if it is not causal, all at once."""

    def __init__(self, sigma: float, causal: bool) -> None:
        self.sigma, self.causal = sigma, causal
        self._past: np.ndarray | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if not self.causal or self.sigma <= 0 or not len(values):
            return lsp.smooth_motion(values, self.sigma)
        reach = len(lsp.causal_weights(self.sigma)) - 1
        if self._past is None:
            self._past = np.repeat(values[:1], reach, axis=0)
        joined = np.concatenate([self._past, values])
        self._past = joined[len(joined) - reach :]
        return lsp.smooth_motion(joined, self.sigma, causal=True)[reach:]


class MotionStream:
    """Takes sound in chunks of any size and returns each frame as soon as its look-ahead arrived.

    Frame k is complete when the sound reaches k / 60 s + 300 ms (the look-ahead) + 25 ms (the last
    mel row of the frame). Without ``infer.motion.causal`` all sound must come at once.
    """

    def __init__(self, speech: SpeechMotion, seed: int) -> None:
        self.speech = speech
        self._wave = np.zeros(0, np.float32)
        self._origin = 0  # number of the first sample kept
        self._rows = 0  # mel rows computed
        self._apc_state: Any = None
        self._a2f_state: Any = None
        self._poses = PoseGenerator(
            speech.audio2headpose, sigma=speech.sigma, ahead=speech.ahead[1], seed=seed
        )
        self._delay = speech.ahead[0]  # outputs of Audio2Feature that are still to be dropped
        self._last: Tensor | None = None  # (1,2H) features of the last frame
        post = speech.options.motion
        sigmas = (post.mouth_smooth, post.rot_smooth, post.trans_smooth)
        self._smooth = [_Smoother(sigma, post.causal) for sigma in sigmas]
        self._amplify = np.repeat([post.rot_amp, post.trans_amp], 3)
        self._mouth = np.zeros((0, lsp.N_POINTS, 3))
        self._pose = np.zeros((0, POSE))
        self._before: np.ndarray | None = None
        self.frames = 0  # returned so far

    @property
    def received(self) -> int:
        """Samples received."""
        return self._origin + len(self._wave)

    def push(self, samples: np.ndarray) -> Motion:
        """The next samples (n,), 16 kHz mono -> the frames of motion that they complete, if any."""
        self._wave = np.concatenate([self._wave, checked_wave(samples)])
        # A mel row needs 266 samples; a frame needs two rows.
        rows = max(0, (self.received - SLICE) * MOTION_FPS * ROWS_PER_FRAME // SAMPLE_RATE + 1)
        while rows and row_start(rows - 1) + SLICE > self.received:
            rows -= 1
        return self._advance(rows - rows % ROWS_PER_FRAME)

    def finish(self, samples: np.ndarray | tuple[()] = ()) -> Motion:
        """The last samples, if any -> the rest of the motion, after the end of the sound."""
        self._wave = np.concatenate([self._wave, checked_wave(samples)])
        return self._advance(ROWS_PER_FRAME * frame_count(self.received), ended=True)

    @torch.no_grad()
    def _advance(self, rows: int, ended: bool = False) -> Motion:
        """The frames that ``rows`` mel rows complete; ``ended``: no more sound follows."""
        if rows > self._rows:
            pairs = self._pairs(rows)
            self._last = pairs[-1:]
        elif self._last is not None:
            pairs = self._last[:0]
        else:
            return self._emit()
        for_mouth = for_pose = pairs
        if ended:
            mouth_ahead, pose_ahead = self.speech.ahead
            for_mouth = torch.cat([pairs, look_ahead(self._last, mouth_ahead)[1:]])
            if self.speech.options.pad_headpose:
                for_pose = torch.cat([pairs, look_ahead(self._last, pose_ahead)[1:]])
        self._predict_mouth(for_mouth)
        self._sample_poses(for_pose)
        return self._emit()

    def _pairs(self, rows: int) -> Tensor:
        """Speech features (n,2H) of the frames up to mel row ``rows``."""
        mel = mel_rows(self._wave, self._rows, rows - self._rows, self._origin)
        self._rows = rows
        drop = max(0, int(row_start(rows)) - self._origin)
        self._wave, self._origin = self._wave[drop:], self._origin + drop
        x = torch.from_numpy(mel)[None].to(self.speech.device)
        features, self._apc_state = self.speech.apc.stream(x, self._apc_state)
        return self.speech.paired(features[0])

    def _predict_mouth(self, pairs: Tensor) -> None:
        if not len(pairs):
            return
        net = self.speech.audio2feature
        points, self._a2f_state = net.stream(pairs[None], self._a2f_state)
        fresh = points[0, self._delay :]
        self._delay = max(0, self._delay - points.shape[1])
        self._mouth = np.concatenate([self._mouth, _spread(fresh)])

    def _sample_poses(self, pairs: Tensor) -> None:
        poses = _stacked(list(self._poses.generate(pairs)))
        self._pose = np.concatenate([self._pose, self._amplify * poses])

    def _emit(self) -> Motion:
        count = min(len(self._mouth), len(self._pose))
        moves = self._smooth[0](self._mouth[:count])
        parts = self._pose[:count, :3], self._pose[:count, 3:]
        pose = np.concatenate([s(p) for s, p in zip(self._smooth[1:], parts, strict=True)], axis=1)
        self._mouth, self._pose = self._mouth[count:], self._pose[count:]
        result = self.speech.compose(moves, pose, self.frames, self._before)
        if count:
            self._before = moves[-1]
        self.frames += count
        return result
